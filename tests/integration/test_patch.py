from __future__ import annotations

from pathlib import Path

from scheduler.core import patch
from scheduler.core.redact import Redactor
from tests.conftest import Git
from tests.samples import private_key, some


def test_the_diff_of_real_git_is_read(repo: Path, git: Git) -> None:
    old, new = "ghp_" + some(36), "ghp_" + some(36)
    (repo / "kept.py").write_text(f"one\ntoken = '{old}'\n" + "line\n" * 20)
    (repo / "gone.txt").write_text(f"{new[:-1]}\n")
    (repo / "moved.txt").write_text("text\n" * 9)
    git("add", "-A", cwd=repo)
    git("commit", "-qm", "Second", cwd=repo)
    (repo / "kept.py").write_text(f"one\nkey = '{old}'\n" + "line\n" * 20 + "++ end, without a line break")
    (repo / "gone.txt").unlink()
    git("mv", "moved.txt", "to here.txt", cwd=repo)
    (repo / 'ö "x".txt').write_text(f"{new}\n")
    (repo / "folder").mkdir()
    (repo / "folder" / "key.pem").write_text(private_key() + "\n")
    (repo / "picture.bin").write_bytes(bytes(range(256)) * 9)
    git("add", "-A", cwd=repo)

    diff = git("diff", "--cached", "HEAD", cwd=repo)

    assert [file.path for file in patch.parse(diff)] == ["folder/key.pem", "/dev/null", "kept.py", 'ö "x".txt']
    assert patch.parse(diff)[2].added == f"key = '{old}'\n++ end, without a line break"
    assert [one[:2] for one in Redactor([]).new_secrets(diff)] == [
        ("folder/key.pem", "private-key"),
        ('ö "x".txt', "github-token"),
    ]
