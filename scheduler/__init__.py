"""A scheduler for Claude Code that carries out each due task in its own git worktree and tells the truth about it."""

__version__ = "0.1.0"
