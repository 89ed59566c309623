"""Names that announce a secret, and values that cannot be one. Pure."""

from __future__ import annotations

import re
from functools import lru_cache

_PARTS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_KINDS = {
    "password": ("password", "passwd", "passphrase", "passcode", "passwort", "pwd"),
    "secret": ("secret", "secrets"),
    "token": ("token", "authtoken", "accesstoken"),
    "key": ("apikey", "authkey", "accesskey", "secretkey", "privatekey", "accountkey", "signingkey", "encryptionkey"),
    "credential": ("credential", "credentials", "creds"),
}
_KIND_OF = {word: kind for kind, words in _KINDS.items() for word in words}
_ENDINGS = ("password", "passwd", "passphrase", "secret", "token", "apikey", "secretkey", "accesskey")
_BEFORE_KEY = frozenset(
    "access account admin api app auth client consumer crypto deploy encrypt encryption hmac jwt license master "
    "private secret service session shared signing storage subscription symmetric webhook".split()
)
# `token_type`, `passwordFile`, `SECRET_NAME`: about a secret, not the secret.
_ABOUT = frozenset(
    "age algorithm arn attempts budget class cls count counter counts created dir directory duration endpoint error "
    "errors exists expiration expire expired expires expiry field file filename format generator header help hint "
    "host id identifier idx index info input issuer kind label len length limit limits link lookup manager max "
    "message min mode name names namespace needed number offset option options path pattern placeholder policy pos "
    "position prompt provider ref reference regex required reset result rotation rule rules scope scopes size "
    "source sources status stdin store strength timeout title ttl type types uri url usage used user username valid "
    "validator version".split()
)
_NO_SECRET_TOKEN = frozenset(
    "bos cached cancel cancellation cls completion continuation design eos first input last lexer mask max min next "
    "num output pad page prev previous prompt reasoning sep special stop syntax thinking total unk unknown".split()
)
_SECRET_PARTS = frozenset(
    "token tokens secret secrets password passwd passphrase pass pwd key keys apikey credential credentials cred creds "
    "auth authtoken".split()
)
_WORDLESS = frozenset("PWD OLDPWD SSH_AUTH_SOCK".split())

_NUMBER = re.compile(r"#[0-9a-fA-F]{3,8}|[+-]?[\d.,:/+_ -]*\d[\d.,:/+_ -]*[%a-zA-Z]{0,2}")
_ADDRESS = re.compile(r"(?:[a-zA-Z][a-zA-Z0-9+.-]{1,20}://|git@)[^\s@?]*")
_PATH = re.compile(r"(?:~|\.{1,2}|[A-Za-z]:|\$\{?\w+\}?)?(?:[/\\][\w.@ +-]*)+")
_PLACEHOLDER = re.compile(
    r"\$[A-Za-z_{(]|\$\{|%[A-Za-z_]\w*%|%[sdr(]|\{|<|@[A-Z_]+@|\#\{|\*{3}|[xX]{4,}(?![A-Za-z0-9])|\.{3}|…|\[|\("
    r"|(?:process\.env|os\.environ|os\.getenv|import\.meta|env|secrets|vars|var|local|data)\.[A-Za-z_]"
    r"|(?i:your|example|dummy|placeholder|changeme|replace|insert|my)[-_ .](?![^A-Za-z]*\d)[A-Za-z_ .-]*$",
    re.ASCII,
)
_OF_SECRETS = frozenset(
    "a an and auth enter access api client db for form key login my new of old or pass password passwd passphrase pwd "
    "reset secret secrets set string test the to token tokens type user value your credential credentials repeat "
    "confirm current basic bearer private public field input here github app".split()
)
_NO_VALUES = frozenset(
    "boolean changed default disabled enabled expired false incorrect inherit integer invalid missing nil no none "
    "null off on optional present redacted removed required string true undefined unknown yes".split()
)


def parts(name: str) -> list[str]:
    """The words of a name in lower case: of `API_KEY`, `apiKey` and `api-key` it is `api`, `key`."""
    return [part.lower() for part in _PARTS.findall(name)]


@lru_cache(maxsize=4096)
def secret_kind(name: str) -> str | None:
    """What a variable, option or field of this name holds, if a secret: password, secret, token, key or credential."""
    words = parts(name)
    # In `token.start` and `password.length` the word is the owner's, and the value another thing.
    owners = len(parts(name.strip(".").rpartition(".")[0]))
    for index, word in enumerate(words[owners:], owners):
        kind = _KIND_OF.get(word) or next((_KIND_OF.get(end, "secret") for end in _ENDINGS if word.endswith(end)), None)
        before = words[:index]
        if word == "key" and before and before[-1] in _BEFORE_KEY:
            kind = "key"
        elif word == "pass" and before:
            kind = "password"
        if kind is None or not _ABOUT.isdisjoint(words[index + 1 :]):
            continue
        if kind == "token" and not _NO_SECRET_TOKEN.isdisjoint(before):
            continue
        return kind
    return None


def names_secret(variable: str) -> bool:
    """Whether an environment variable of this name is taken to hold a secret: it has such a word as a whole part."""
    if variable.upper() in _WORDLESS:
        return False
    words = parts(variable)
    return not _SECRET_PARTS.isdisjoint(words) or any(word.endswith(_ENDINGS) for word in words)


def harmless(value: str) -> bool:
    """Whether a value is a number, a boolean or such a word, a path, or an address without credentials."""
    if value.lower() in _NO_VALUES or _NUMBER.fullmatch(value):
        return True
    return bool(_ADDRESS.fullmatch(value)) or _is_path(value)


def is_placeholder(value: str) -> bool:
    """Whether a value stands for another: `${VAR}`, `<your-token>`, `*****`, `your-key-here`."""
    return _PLACEHOLDER.match(value) is not None


def names_itself(value: str) -> bool:
    """Whether a value only says what should stand there: `password`, `new_token`, `mySecret`."""
    words = parts(value)
    return bool(words) and _OF_SECRETS.issuperset(words) and not any(char.isdigit() for char in value)


def speaks_of_secrets(text: str) -> bool:
    """Whether a sentence has a word of secrets: `Enter your password` is none itself."""
    return not _SECRET_PARTS.isdisjoint(parts(text))


def _is_path(value: str) -> bool:
    # A key in base64 may begin with a slash too: its words are longer than those of a path.
    return bool(_PATH.fullmatch(value)) and all(len(word) <= 24 for word in re.split(r"[/\\_. @+-]", value))
