from __future__ import annotations

import base64
import html
import itertools
import json
import os
import random
import re
import shlex
import subprocess
import time
import urllib.parse
from collections.abc import Callable

import pytest

from scheduler.core.plain import LINE_LIMIT, Lines
from scheduler.core.redact import Redactor, Span, known_values, merged
from tests.samples import ANNOUNCED, HEX, LOOK_ALIKES, PASSWORD, SHAPED, private_key, some

BARE = Redactor([])
MARK = re.compile(r"\[REDACTED:[a-z-]+\]")
KEY_MARK = "[REDACTED:private-key]"


@pytest.mark.parametrize(("kind", "secret"), SHAPED)
def test_a_secret_is_known_by_its_shape(kind: str, secret: str) -> None:
    for context in ("{}", "see {}, and", 'x="{}";', "({})", "{}\nnext", "a\t{}"):
        assert BARE.text(context.format(secret)) == context.format(f"[REDACTED:{kind}]")
    for context in ("q=1%3D{}", '"line\\n{}\\n"'):
        assert secret[:-1] not in BARE.text(context.format(secret))


@pytest.mark.parametrize(("context", "secret"), ANNOUNCED)
def test_a_secret_is_known_by_what_stands_before_it(context: str, secret: str) -> None:
    clean = BARE.text(context.format(secret))
    assert MARK.sub("{}", clean) == context.replace("{{", "{").replace("}}", "}")
    assert BARE.text(clean) == clean


@pytest.mark.parametrize("text", LOOK_ALIKES)
def test_h8_what_only_looks_like_a_secret_stays(text: str) -> None:
    redactor = Redactor([some(40)])
    assert redactor.text(text) == text
    assert redactor.stream().line(text) == text
    assert redactor.find(text) == []
    assert redactor.text(f"before\n  {text}\nafter") == f"before\n  {text}\nafter"


@pytest.mark.parametrize(
    ("name", "value", "masked"),
    [
        ("GITHUB_TOKEN", "hunter2hunter2", True),
        ("token", "hunter2hunter2", True),
        ("CLIENT_SECRET", "hunter2hunter2", True),
        ("DB_PASSWORD", "hunter2hunter2", True),
        ("DB_PASSWD", "hunter2hunter2", True),
        ("SMTP_PASS", "hunter2hunter2", True),
        ("PGPASSWORD", "hunter2hunter2", True),
        ("MYSQL_PWD", "hunter2hunter2", True),
        ("SIGNING_KEY", "hunter2hunter2", True),
        ("AWS_CREDENTIALS", "hunter2hunter2", True),
        ("npm_config_authToken", "hunter2hunter2", True),
        ("REDISCLI_AUTH", "hunter2hunter2", True),
        ("DB_PASSWORD", " hunter2hunter2\n", True),
        ("API_KEY", "/abc/def+" + some(31), True),
        ("MONKEY", "hunter2hunter2", False),
        ("TOKENIZER", "hunter2hunter2", False),
        ("AUTHOR", "hunter2hunter2", False),
        ("PWD", "hunter2hunter2", False),
        ("OLDPWD", "hunter2hunter2", False),
        ("SSH_AUTH_SOCK", "hunter2hunter2", False),
        ("API_TOKEN", "hunter2", False),
        ("API_TOKEN", "12345678", False),
        ("API_TOKEN", "1_234_567.89", False),
        ("USE_TOKEN", "disabled", False),
        ("SSH_KEY", "/home/me/.ssh/id_ed25519", False),
        ("SSH_KEY", "~/.ssh/id_ed25519", False),
        ("SSH_KEY", "C:\\Users\\me\\key", False),
        ("TOKEN_URL", "https://login.example/token", False),
        ("TOKEN_URL", "https://me:hunter2@login.example/token", True),
    ],
)
def test_h6_which_variables_hold_known_values(name: str, value: str, masked: bool) -> None:
    assert known_values({name: value}, {}) == ((value.strip(),) if masked else ())
    assert known_values({}, {name: value}) == ((value.strip(),) if masked else ())


AWKWARD = 'pa$$ \'w"ö\\rd"/<&>+=%'


def forms(value: str) -> dict[str, str]:
    return {
        "raw": value,
        "backwards": value[::-1],
        "url": urllib.parse.quote(value, safe=""),
        "url path": urllib.parse.quote(value),
        "url lower": re.sub("%..", lambda m: m[0].lower(), urllib.parse.quote(value, safe="")),
        "form": urllib.parse.quote_plus(value),
        "json": json.dumps(value),
        "json utf-8": json.dumps(value, ensure_ascii=False),
        "json php": json.dumps(value).replace("/", "\\/"),
        "json in json": json.dumps(json.dumps(value)),
        "shell": shlex.quote(value),
        "shell other": "'" + value.replace("'", "'\\''") + "'",
        "printf %q": re.sub(r"([^\w@%+=:,./-])", r"\\\1", value),
        "double quotes": '"' + re.sub(r'([$`"\\!])', r"\\\1", value) + '"',
        "xml": html.escape(value),
        "hex": value.encode().hex(),
        "HEX": value.encode().hex().upper(),
        **{f"base64 at {n}": base64.b64encode(b"x" * n + value.encode() + b"yz").decode() for n in range(3)},
        **{f"url base64 at {n}": base64.urlsafe_b64encode(b"?" * n + value.encode()).decode() for n in range(3)},
    }


@pytest.mark.parametrize("value", ["plainvalue", AWKWARD, some(108)])
@pytest.mark.parametrize("form", sorted(forms("")))
def test_a_known_value_is_found_in_every_form(value: str, form: str) -> None:
    text = forms(value)[form]
    clean = Redactor([value]).text(f"x {text} y")
    assert MARK.search(clean)
    # Of base64 at an offset, the characters at the ends hold bits of what stands beside it.
    assert not any(text[i : i + 6] in clean for i in range(3, len(text) - 9))


@pytest.mark.parametrize("indent", ["", "    "])
@pytest.mark.parametrize("size", [12, 20, 40, 108])
def test_a_known_value_is_found_in_wrapped_base64(size: int, indent: str) -> None:
    value = some(size)
    own = {base64.b64encode(b"x" * at + value.encode()).decode()[at + 1 :][: 4 * size // 3 - 3] for at in range(3)}
    for width, before in itertools.product((64, 76), range(40, 76, 3)):
        encoded = base64.b64encode(b"-" * before + value.encode() + b"-" * 60).decode()
        lines = [indent + encoded[i : i + width] for i in range(0, len(encoded), width)]
        stream = Redactor([value]).stream()
        for clean in (Redactor([value]).text("\n".join(lines)), "\n".join(filter(None, map(stream.line, lines)))):
            assert not any(form[i : i + 6] in clean for form in own for i in range(len(form) - 5))


def test_the_beginning_of_a_form_of_base64_alone_is_no_secret() -> None:
    value = some(30)
    begun = base64.b64encode(value.encode()).decode()[:10]
    for text in (f"see {begun}", f"see {begun}\n{'-' * 20} and on"):
        assert Redactor([value]).text(text) == text
        assert [Redactor([value]).stream().line(line) for line in text.split("\n")] == text.split("\n")


def said(*command: str, value: str = "", **variables: str) -> str:
    return subprocess.run(command, input=value.encode(), env={"PATH": os.environ["PATH"], **variables},
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=True).stdout.decode()  # fmt: skip


@pytest.mark.parametrize(
    "written",
    [
        lambda value: said("bash", "-c", 'printf %q "$1"', "-", value),
        lambda value: said("bash", "-c", "declare -p V", V=value),
        lambda value: said("bash", "-xc", ': "$1"', "-", value),
        lambda value: said("sh", "-c", "export -p", V=value),
        *(lambda value, form=form: said("jq", "-Rr", form, value=value) for form in ("@sh", "@uri", "@html", "@json")),
        repr,
        ascii,
        lambda value: repr(value.encode()),
        lambda value: json.dumps(json.dumps(json.dumps(value))),
        lambda value: re.sub("[<>&]", lambda m: f"\\u{ord(m[0]):04x}", json.dumps(value, ensure_ascii=False)),
        lambda value: urllib.parse.quote(value, safe="-_.!~*'()"),
        lambda value: urllib.parse.quote(value, safe=";,/?:@&=+$-_.!~*'()#"),
        lambda value: urllib.parse.quote(urllib.parse.quote(value, safe=""), safe=""),
        lambda value: re.sub("[<>&'\"]", lambda m: f"&#{ord(m[0])};", value),
        lambda value: '"' + value.replace('"', '""') + '"',
    ],
)
@pytest.mark.parametrize(
    "value", ['pa$$ \'word"ö\\d"/<&>+=%', "p&ss<w>ord=1\"x'y", "tr0ub4dor&3\\<wz>!", "pä55wört-€-\U0001f600zz#9"]
)
def test_a_known_value_is_found_however_a_program_writes_it(value: str, written: Callable[[str], str]) -> None:
    text = written(value)
    clean = Redactor([value]).text(f"x {text} y")
    assert MARK.search(clean)
    assert not any(run in clean for run in re.findall("[a-z0-9]{3,}", value))
    other = re.sub("[wz]", "v", text)
    assert Redactor([value]).text(other) == other


def test_spellings_are_tried_in_linear_time() -> None:
    value = '\\"\\"\\\\""""%25%25&amp;\'\'abc' + '\\"' * 40 + "%&<" * 40
    redactor = Redactor([value])
    for text in ("abc" * 100_000, value[:-1] * 1_000, json.dumps(json.dumps(value[:-1])) * 300, "\\" * 300_000 + "abc"):
        begin = time.process_time()
        redactor.text(text)
        assert time.process_time() - begin < 3


def test_a_known_value_of_several_lines_is_found_line_by_line() -> None:
    first, second = some(40), some(40)
    redactor = Redactor([f"{first}\n  {second}\nshort\n"])
    stream = redactor.stream()
    assert stream.line(f"1: {first}") == "1: [REDACTED:known]"
    assert stream.line("short") == "short"
    assert stream.line(f"2: {second}.") == "2: [REDACTED:known]."
    assert redactor.text(f"{first}\\n  {second}\\nshort") == "[REDACTED:known]"


def test_overlapping_secrets_are_one_under_the_most_telling_kind() -> None:
    token = "ghp_" + some(36)
    assert Redactor([token]).text(f"GITHUB_TOKEN={token}") == "GITHUB_TOKEN=[REDACTED:github-token]"
    assert Redactor(["hunter2hunter2"]).text("password=hunter2hunter2!") == "password=[REDACTED:known]"
    assert Redactor(["abcdefgh", "efghijkl"]).text("xabcdefghijkly") == "x[REDACTED:known]y"
    assert merged([Span(3, 5, "b"), Span(0, 2, "a"), Span(1, 3, "c")]) == [Span(0, 3, "a"), Span(3, 5, "b")]


def test_a_secret_that_another_one_hides_is_found_all_the_same() -> None:
    hidden = "sk-" + some(40)
    assert Redactor(["hunter2hunter2"]).text(f"hunter2hunter2{hidden}") == "[REDACTED:known][REDACTED:openai-key]"


def test_what_does_not_settle_is_masked_whole() -> None:
    chain = "".join("dapi" + some(32, HEX) for _ in range(9))
    assert BARE.text(f"before\na {chain} b\nnext line") == "before\n[REDACTED:line]\nnext line"


@pytest.mark.parametrize("kind", ["", "RSA ", "EC ", "OPENSSH ", "ENCRYPTED "])
def test_a_private_key_is_masked_from_begin_to_end(kind: str) -> None:
    assert BARE.text(f"a\n{private_key(kind)}\nb") == f"a\n{KEY_MARK}\nb"


def test_private_keys_in_other_dress() -> None:
    key = private_key()
    assert BARE.text(json.dumps({"key": key + "\n", "id": 7})) == json.dumps({"key": KEY_MARK + "\n", "id": 7})
    pgp = key.replace("RSA PRIVATE KEY", "PGP PRIVATE KEY BLOCK").replace("KEY-----\n", "KEY BLOCK-----\n")
    pgp = pgp.replace("BLOCK BLOCK", "BLOCK").replace("-----\n", "-----\nVersion: GnuPG v2\n\n", 1)
    assert BARE.text(f"{pgp}\nafter") == f"{KEY_MARK}\nafter"
    legacy = key.replace("-----\n", "-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,0A1B\n\n", 1)
    assert BARE.text(f"{legacy}\nafter") == f"{KEY_MARK}\nafter"
    added = "\n".join("+" + line for line in key.split("\n"))
    assert BARE.text(f"{added}\n after") == f"+{KEY_MARK}\n after"
    quoted = "\n".join(f'  "{line}\\n" +' for line in key.split("\n"))
    assert BARE.text(f"{quoted}\nafter") == f'  "{KEY_MARK}\n\\n" +\nafter'
    assert BARE.text(urllib.parse.quote(key.replace("\n", ""))) == KEY_MARK


def test_h3_a_private_key_that_is_cut_off_is_masked_to_the_end() -> None:
    lines = private_key(lines=40).split("\n")
    for kept in (1, 2, 20, 40, 41):
        assert BARE.text("\n".join(["a", *lines[:kept]])) == f"a\n{KEY_MARK}"
        assert BARE.text("\\n".join(lines[:kept])) == KEY_MARK


def test_a_private_key_in_a_stream_is_one_line() -> None:
    stream = BARE.stream()
    key = private_key().split("\n")
    assert stream.line(f"key: {key[0]}") == f"key: {KEY_MARK}"
    assert [stream.line(line) for line in key[1:]] == [None] * (len(key) - 1)
    assert stream.line("done") == "done"
    assert stream.dropped == 0


def test_lines_between_those_of_a_private_key_stay_and_do_not_end_it() -> None:
    key = private_key(lines=10).split("\n")
    text = "\n".join([*key[:5], "12:00:01 still at work", *key[5:], "12:00:02 done"])
    assert BARE.text(text) == f"{KEY_MARK}\n12:00:01 still at work\n12:00:02 done"


def test_a_mention_of_a_private_key_swallows_nothing() -> None:
    begin = "-----BEGIN RSA PRIVATE" + " KEY-----"
    text = f"grep found {begin} in a.py\nthen it went on"
    assert BARE.text(text) == text
    code = [f'HEADER = "{begin}"', "def f(x: int) -> int:", "    return x + 1", *["    # a comment"] * 20, some(40)]
    assert BARE.text("\n".join(code)).split("\n")[1:] == code[1:]


def test_marks_are_never_eaten() -> None:
    token = "ghp_" + some(36)
    redactor = Redactor(["REDACTED", "redacted-value"])
    for text in (
        "[REDACTED:github-token]",
        f"password=[REDACTED:known] {token}",
        "token: [REDACTED:token]",
        "REDACTED",
    ):
        once = redactor.text(text)
        assert redactor.text(once) == once
    assert redactor.text("[REDACTED:github-token]") == "[REDACTED:github-token]"
    assert BARE.text('password="a [REDACTED:known] b"') == BARE.text(BARE.text('password="a [REDACTED:known] b"'))


class Breaking(Redactor):
    """Fails on what it is told to."""

    def spans(self, text: str) -> list[Span]:
        if "break" in text:
            raise RecursionError(text)
        return super().spans(text)


def test_h9_a_line_that_cannot_be_redacted_is_dropped_and_counted() -> None:
    stream = Breaking([]).stream()
    assert stream.lines(["a", "break " + PASSWORD, "b"]) == ["a", "b"]
    assert stream.line("please break") is None
    assert stream.line("c") == "c"
    assert stream.dropped == 2
    assert Breaking([]).text("a\nbreak\nb") == "a\n[REDACTED:failed]\nb"


def test_a_failure_within_a_private_key_leaves_it_open() -> None:
    stream = Breaking([]).stream()
    key = private_key().split("\n")
    assert stream.lines([*key[:3], "you break", *key[3:], "after"]) == [KEY_MARK, "after"]
    assert stream.dropped == 1


def test_a_name_and_its_value_may_come_in_two_blocks() -> None:
    stream = BARE.stream()
    assert stream.line("  password: |") == "  password: |"
    assert stream.line("    swordfishes") == "    [REDACTED:password]"
    assert stream.line("    swordfishes") == "    swordfishes"


@pytest.mark.parametrize("secret", ["ghp_" + some(36), "correct horse battery staple"])
def test_h5_a_secret_over_the_cut_of_a_long_line_is_seen_whole(secret: str) -> None:
    for at in range(LINE_LIMIT - len(secret) - 1, LINE_LIMIT + 2, 3):
        line = "x" * (at - 1) + " " + secret + " " + "y" * 30000
        reader, stream = Lines(), Redactor(["correct horse battery staple"]).stream()
        (clean,) = stream.lines(reader.feed(line.encode() + b"\n"))
        assert clean.endswith(f" [{len(line) - LINE_LIMIT} characters cut]") and len(clean) < LINE_LIMIT + 40
        assert not any(secret[i : i + 6] in clean for i in range(len(secret) - 5))
        assert stream.line(clean) == clean


def test_a_long_line_is_cut_but_a_text_is_not() -> None:
    line = "word " * 5000
    (clean,) = BARE.stream().lines([line])
    assert clean == line[:LINE_LIMIT] + f" [{len(line) - LINE_LIMIT} characters cut]"
    assert BARE.text(line) == line
    cut = BARE.stream().line("token=hunter2x " * 2000)
    assert cut is not None and LINE_LIMIT - 40 < len(cut) < LINE_LIMIT + 40
    assert cut.count("[REDACTED:token]") == cut.count("[REDACTED")
    assert BARE.stream().line(cut) == cut


def test_find_tells_kind_and_place() -> None:
    token, key = "ghp_" + some(36), private_key()
    text = f"a {token}\n{key}\nPASSWORD={PASSWORD}"
    found = BARE.find(text)
    assert [(kind, text[start:end]) for kind, start, end in found] == [
        ("github-token", token),
        ("private-key", key),
        ("password", PASSWORD),
    ]


def diff(added: list[str], removed: list[str] | None = None, path: str = "b/src/app.py") -> str:
    lines = [f"-{line}" for line in removed or []] + [f"+{line}" for line in added]
    head = f"diff --git a/x b/x\nindex 0..1 100644\n--- a/x\n+++ {path}\n"
    return f"{head}@@ -1,{1 + len(removed or [])} +1,{1 + len(added)} @@ def f\n context\n" + "\n".join(lines) + "\n"


def new(redactor: Redactor, text: str) -> list[tuple[str, str]]:
    return [(found.path, found.kind) for found in redactor.new_secrets(text)]


def test_new_secrets_are_those_in_added_lines_alone() -> None:
    token = "ghp_" + some(36)
    assert new(BARE, diff([f"x = '{token}'", f"y = '{token}'"])) == [("src/app.py", "github-token")]
    assert new(BARE, diff(["x = 1"], [f"x = '{token}'"])) == []
    assert new(BARE, diff([f"moved = '{token}'"], [f"x = '{token}'"])) == []
    assert new(BARE, diff(private_key().split("\n"))) == [("src/app.py", "private-key")]
    assert new(BARE, diff(["++ b/other", f"z {token}"], ["-- a"])) == [("src/app.py", "github-token")]
    assert new(BARE, diff([token]) + diff([PASSWORD], path="b/q")) == [("src/app.py", "github-token")]
    assert new(Redactor([PASSWORD]), diff([PASSWORD], path='"b/\\303\\266 \\"q\\".py"')) == [('ö "q".py', "known")]
    assert new(BARE, "") == [] and new(BARE, "not a diff\n+" + token) == []


@pytest.mark.parametrize(
    "piece",
    [
        "sk-",
        "curl ",
        "-eyJ",
        "token=",
        "token = ",
        "password: ",
        "key",
        "api_key=",
        "curl -u a:b ",
        "://a:b@",
        "hunter2",
        "/",
    ],
)
def test_h7_hostile_text_takes_linear_time(piece: str) -> None:
    text = piece * (400_000 // len(piece))
    redactor = Redactor(["hunter2hunter2hunter"])
    begin = time.process_time()
    redactor.text(text)
    assert time.process_time() - begin < 3


def test_a_long_log_of_random_bytes_breaks_nothing() -> None:
    data = random.Random(4).randbytes(200_000)
    stream, reader = BARE.stream(), Lines()
    for start in range(0, len(data), 4099):
        stream.lines(reader.feed(data[start : start + 4099]))
    stream.lines(reader.end())
    assert stream.dropped == 0
