"""Credentials and persons are seen wherever a notebook can hold them, and nothing else is."""

import base64
import json
import random
import string
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from tools.analysis.credentials import find_credentials
from tools.errors import NotebookError
from tools.notebook import read
from tools.rules import RULES, Subject, links, privacy, prose  # noqa: F401 (they enter the rules)
from tools.settings import Settings
from tools.stats import measure


def random_text(n, alphabet=string.ascii_letters + string.digits):
    """Signs drawn by chance, the same in each run: no secret stands in this file."""
    rng = random.Random(n)
    return "".join(rng.choice(alphabet) for _ in range(n))


HEX = "0123456789abcdef"
HF = "hf_" + random_text(34)
WANDB = random_text(40, HEX)
OPENAI = "sk-proj-" + random_text(30) + "T3Blb" + "kFJ" + random_text(30)
AWS = "AKI" + "A" + random_text(16, string.ascii_uppercase + string.digits)
GITHUB = "gh" + "p_" + random_text(36)
GOOGLE = "AI" + "za" + random_text(35)
PEM = "-----BEGIN RSA PRIVATE " + "KEY-----\n" + random_text(64) + "\n"


def code_cell(source="x", outputs=(), **metadata):
    """A code cell as JSON."""
    fields = {"cell_type": "code", "execution_count": None, "metadata": metadata}
    return fields | {"source": source, "outputs": list(outputs)}


def subject_of(folder, *cells, **metadata):
    """A notebook of these cells."""
    path = Path(folder) / "a.ipynb"
    content = {"nbformat": 4, "nbformat_minor": 4, "metadata": metadata, "cells": list(cells)}
    path.write_text(json.dumps(content))
    return Subject(read(path), Settings(Path(folder)), Path(folder))


def found(code, subject):
    """Cell, line and severity of each problem."""
    rule = RULES[code]
    return [(p.cell, p.line, p.severity or rule.severity) for p in rule.check(subject)]


@pytest.mark.parametrize(
    "source",
    [
        pytest.param(f'login(token="{HF}")', id="Hugging Face"),
        pytest.param(f"!wandb login {WANDB}", id="W&B in the shell"),
        pytest.param(f'wandb.login(key="{WANDB}")', id="W&B in Python"),
        pytest.param(f'os.environ["WANDB_API_KEY"] = "{WANDB}"', id="environment"),
        pytest.param(f"%env COMET_API_KEY={random_text(25)}", id="%env"),
        pytest.param(f'client = OpenAI(api_key="{OPENAI}")', id="OpenAI"),
        pytest.param(f'genai.configure(api_key="{GOOGLE}")', id="Google"),
        pytest.param(f"aws_id = '{AWS}'", id="AWS"),
        pytest.param(f"!git clone https://ann:{GITHUB}@github.com/a/b", id="GitHub, in a URL"),
        pytest.param("postgresql://ann:hunter22@db.org/x", id="password in a URL"),
        pytest.param(f'{{"username":"ann","key":"{random_text(32, HEX)}"}}', id="Kaggle"),
        pytest.param(f'key = """{PEM}"""', id="private key"),
        pytest.param("xox" + "b-123456789012-" + random_text(24).lower(), id="Slack"),
        pytest.param(f'ngrok.set_auth_token("{random_text(27)}_{random_text(21)}")', id="ngrok"),
    ],
)
def test_a_credential_in_a_source_is_found_once_and_not_shown(tmp_path, source):
    subject = subject_of(tmp_path, code_cell("x = 1\n" + source))

    (problem,) = RULES["PV501"].check(subject)

    assert (problem.cell, problem.line) == (0, 2)
    assert not any(secret.value in problem.message for secret in find_credentials(source))


@pytest.mark.parametrize(
    "source",
    [
        pytest.param('token = "YOUR_API_KEY"; key = "<token>"; t = "hf_xxx"', id="placeholders"),
        pytest.param(f'token = "hf_{"x" * 34}"', id="crosses"),
        pytest.param('api_key = "sk-1234567890abcdef1234567890abcdef"', id="counting"),
        pytest.param("aws_id = 'AKI" + "AIOSFODNN7EXAMPLE'", id="example of AWS"),
        pytest.param(f'REF = "{WANDB}"; sha = "{random_text(64, HEX)}"', id="git and SHA-256"),
        pytest.param(f"!pip install x --hash=sha256:{random_text(64, HEX)}", id="pip hash"),
        pytest.param('token = "123e4567-e89b-42d3-a456-426614174000"', id="UUID"),
        pytest.param('pad_token="<|endoftext|>", eos_token = tokenizer.eos_token', id="tokens"),
        pytest.param('token = userdata.get("HF_TOKEN"); key = os.environ["API_KEY"]', id="read"),
        pytest.param('api_key = "my-long-model-name-2024-05-01-final"', id="words"),
        pytest.param('f"https://{user}:{token}@github.com/a/b"', id="template"),
        pytest.param('if "BEGIN PRIVATE " + "KEY" in text: pass', id="name of a key"),
        pytest.param('class="sk-toggleable__content sk-estimator-id-1"', id="CSS"),
        pytest.param('"tokens": 12345678901234567890123, "n_tokens": 3', id="counts"),
        pytest.param("https://user:password@host/ http://[::1]:8080/a@b", id="URLs"),
    ],
)
def test_what_only_looks_like_a_credential_is_left_alone(tmp_path, source):
    assert found("PV501", subject_of(tmp_path, code_cell(source))) == []


def stream(text):
    return {"output_type": "stream", "name": "stdout", "text": text.splitlines(keepends=True)}


def data(mime, value, metadata=None):
    return {"output_type": "display_data", "metadata": metadata or {}, "data": {mime: value}}


RESOURCE = {
    "https://localhost/x.js": {
        "data": base64.b64encode(f'var key = "{OPENAI}";'.encode()).decode(),
        "headers": [["content-type", "application/javascript"]],
        "ok": True,
        "status": 200,
    }
}
ERROR = {"output_type": "error", "ename": "E", "evalue": "", "traceback": [f"\x1b[31m{HF}\x1b[0m"]}
LEAKS = [
    pytest.param(stream(f"a\nlogged in as {HF}\n"), id="stream"),
    pytest.param(data("text/html", [f"<b>key</b>={GOOGLE}\n"]), id="HTML"),
    pytest.param(data("application/json", {"a": [{"WANDB_API_KEY": WANDB}]}), id="JSON"),
    pytest.param(data("text/html", f"api_key=&quot;{random_text(30)}&quot;"), id="escaped HTML"),
    pytest.param(data("text/plain", "ok", {"colab": {"resources": RESOURCE}}), id="resource"),
    pytest.param(ERROR, id="traceback in colours"),
]


@pytest.mark.parametrize("output", LEAKS)
def test_a_credential_in_an_output_is_found_and_the_output_can_be_dropped(tmp_path, output):
    kept = stream("loss 0.5\n")
    subject = subject_of(tmp_path, code_cell(f'key = "{HF}"', [kept, output]))

    assert found("PV501", subject) == [(0, 1, "error"), (0, None, "error")]
    RULES["PV501"].fix(subject)
    assert subject.notebook.cells[0].node["outputs"] == [kept]
    assert found("PV501", subject) == [(0, 1, "error")]


def test_a_credential_in_metadata_is_found(tmp_path):
    cell = code_cell(colab={"resources": RESOURCE | {"https://localhost/y": {"data": "%"}}})
    subject = subject_of(tmp_path, cell, note={"api_key": random_text(30)})

    assert found("PV501", subject) == [(0, None, "error"), (None, None, "error")]
    RULES["PV501"].fix(subject)
    assert found("PV501", subject) == [(None, None, "error")]
    assert list(subject.notebook.cells[0].metadata["colab"]["resources"]) == ["https://localhost/y"]


@pytest.mark.parametrize(
    "output",
    [
        pytest.param(data("image/png", base64.b64encode(HF.encode() * 9).decode()), id="picture"),
        pytest.param(data("image/png", f"token={HF}"), id="whatever a picture holds"),
        pytest.param(stream("api_key: ********\ntoken=hf_...\n"), id="masked"),
        pytest.param(data("application/json", {"token": None, "n": [1.5, True]}), id="no text"),
    ],
)
def test_outputs_without_a_credential_are_left_alone(tmp_path, output):
    subject = subject_of(tmp_path, code_cell("x", [output]))

    assert found("PV501", subject) == []
    RULES["PV501"].fix(subject)
    assert subject.notebook.cells[0].node["outputs"] == [output]


def test_a_clean_notebook_does_not_pay_for_the_detectors(tmp_path):
    import subprocess
    import sys

    program = (
        "import sys; from tools.analysis.credentials import find_credentials;"
        "list(find_credentials('model = build(data)\\nhttps://a.org/b'));"
        "sys.exit('detect_secrets' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


USER = {"displayName": "Ann Example", "photoUrl": "", "userId": "0123"}


@pytest.mark.parametrize(
    "cell, problem",
    [
        pytest.param(code_cell(executionInfo={"user": USER}), (0, None, "error"), id="user"),
        pytest.param(
            code_cell("x = 1\nopen('/home/ann/a.txt')"), (0, 2, "warning"), id="Linux, source"
        ),
        pytest.param(code_cell("cd /Users/ann"), (0, 1, "warning"), id="Mac, source"),
        pytest.param(code_cell(r"p = 'C:\\Users\\ann\\x'"), (0, 1, "warning"), id="Windows"),
        pytest.param(
            code_cell("x", [stream("in /home/ann/lib/a.py\n" * 9)]), (0, None, "error"), id="output"
        ),
        pytest.param(
            code_cell("x", [data("text/html", '<a href="file:///Users/ann/x">')]),
            (0, None, "error"),
            id="HTML",
        ),
        pytest.param(code_cell(note="mail ann@uni.edu"), (0, None, "error"), id="address"),
        pytest.param(code_cell(path="/home/ann/x/y"), (0, None, "error"), id="metadata"),
    ],
)
def test_a_person_is_found(tmp_path, cell, problem):
    assert found("PV502", subject_of(tmp_path, cell)) == [problem]


@pytest.mark.parametrize(
    "cell, metadata",
    [
        pytest.param(code_cell(executionInfo={"user": {"userId": ""}, "status": "ok"}), {}, id="-"),
        pytest.param(code_cell("open('/content/drive/MyDrive/ann/x')"), {}, id="Drive"),
        pytest.param(code_cell("/home/jovyan/x /home/runner/y /Users/runner/z"), {}, id="images"),
        pytest.param(code_cell("'/home/USER/x', '/home/<name>/y', '~/x'"), {}, id="placeholders"),
        pytest.param(code_cell("https://a.org/home/ann/x https://a.org/Users/ann"), {}, id="URLs"),
        pytest.param(code_cell("write to ann@uni.edu"), {}, id="address in the text"),
        pytest.param(code_cell(), {"authors": [{"email": "ann@uni.edu"}]}, id="authors"),
        pytest.param(code_cell(), {"papermill": {"input_path": "a.ipynb"}}, id="relative path"),
        pytest.param(code_cell(note="1@2x.png, noreply@a.org, x@example.com"), {}, id="nobody"),
    ],
)
def test_nobody_is_found_where_nobody_is_named(tmp_path, cell, metadata):
    assert found("PV502", subject_of(tmp_path, cell, **metadata)) == []


def test_the_fix_drops_who_ran_it_and_where(tmp_path):
    cell = code_cell(executionInfo={"user": USER}, tags=["keep"])
    papermill = {"input_path": "/tmp/x.ipynb", "output_path": "out.ipynb"}
    subject = subject_of(tmp_path, cell, code_cell(), papermill=papermill, kernelspec={})

    assert found("PV502", subject) == [(0, None, "error"), (None, None, "error")]
    RULES["PV502"].fix(subject)
    assert found("PV502", subject) == []
    assert subject.notebook.cells[0].metadata == {"tags": ["keep"]}
    assert subject.notebook.content["metadata"] == {"kernelspec": {}}


KEYS = "executionInfo user papermill colab resources data headers status image/png text/html"
MORE_KEYS = "input_path output_path tags authors id level traceback"
SCRAPS = ["# T\n[a](#b)", "<![x", "`$$", "cell 3", "[a](b/c.md", "open('a/b.json')\n!cat x", HF]
LINKS = [
    "https://github.com/a/b/blob/x",
    "/home/ann/x",
    "a@b.org",
    "eyJhbGciOi.eyJ.",
    "://a:bbbbb@",
]
WORDS = st.sampled_from([*KEYS.split(), *MORE_KEYS.split(), *SCRAPS, *LINKS])
TEXT = st.lists(WORDS | st.text(max_size=8), max_size=5).map(" ".join)
KEY = WORDS | st.text(max_size=4)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEY, inner, max_size=5),
    max_leaves=20,
)
OBJECT = st.dictionaries(KEY, JSON, max_size=5)
CELLS = st.fixed_dictionaries(
    {"cell_type": st.sampled_from(["code", "markdown", "raw"]), "source": TEXT},
    optional={"metadata": OBJECT, "outputs": st.lists(OBJECT), "attachments": JSON},
)


@settings(max_examples=200, deadline=None)
@given(metadata=OBJECT, cells=st.lists(CELLS, max_size=4))
def test_no_rule_raises_on_any_notebook_that_can_be_read(metadata, cells):
    content = {"nbformat": 4, "nbformat_minor": 4, "metadata": metadata, "cells": cells}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.ipynb"
        path.write_text(json.dumps(content))
        try:
            notebook = read(path)
        except NotebookError:
            reject()
        project = Settings(Path(folder), paths=("a.ipynb",), ref="v1", repository="github.com/a/b")
        subject = Subject(notebook, project, Path(folder))

        for code in ("CO101", "CO102", "CO105", "CO106", "CO107", "PV501", "PV502"):
            assert all(problem.message and problem.cure for problem in RULES[code].check(subject))
        for code in ("CO101", "PV501", "PV502"):
            RULES[code].fix(subject)
            once = notebook.text()
            RULES[code].fix(subject)
            assert notebook.text() == once
        measure(notebook, ("train",))
