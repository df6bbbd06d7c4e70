"""The documentation does what it says: its code runs, its pictures are the library's, its reference is whole."""

import ast
import doctest
import importlib.util
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import treescan
import treescan.compat
import treescan.nn

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md")) + [ROOT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")]
FENCE = re.compile(r"^( *)```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


def blocks(page, *languages):
    """(line, language, title, code) of a page's fenced blocks."""
    text = page.read_text()
    for match in FENCE.finditer(text):
        if match.group(2) in languages:
            line = text[: match.start()].count("\n") + 2
            yield line, match.group(2), match.group(3), textwrap.dedent(match.group(4))


def name(path):
    return str(path.relative_to(ROOT))


@pytest.fixture
def one_process(monkeypatch):
    """The environment that torchrun gives its only process."""
    for key, value in {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}.items():
        monkeypatch.setenv(key, value)


@pytest.mark.parametrize("page", [page for page in PAGES if any(blocks(page, "python", "pycon"))], ids=name)
def test_python_runs(page, one_process):
    """Blocks of a page run in one session, from its first to its last; what stands behind a prompt gives what is shown."""
    names = {"__name__": "docs"}
    for line, language, _, code in blocks(page, "python", "pycon"):
        if language == "python":
            exec(compile("\n" * (line - 1) + code, str(page), "exec"), names)
        else:
            test = doctest.DocTestParser().get_doctest(code, names, name(page), str(page), line - 1)
            runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
            runner.run(test, clear_globs=False)
            assert runner.failures == 0
            names.update(test.globs)


def test_other_code_is_known():
    """Whatever isn't run by the tests says so by its language."""
    for page in PAGES:
        for line, language, _, _ in blocks(page, r"\w+"):
            assert language in ("python", "pycon", "c", "cpp", "cmake", "text", "yaml"), f"{page}:{line}: {language}"


def test_c_and_cpp_build_and_run(tmp_path):
    """The programs of the page on C and C++, built as it says, print what it says."""
    page = DOCS / "guides/c-and-cpp.md"
    files = {title: code for _, _, title, code in blocks(page, "c", "cpp", "cmake", "text") if title}
    assert {"CMakeLists.txt", "smooth.c", "smooth.cpp"} <= set(files)
    for title, code in files.items():
        (tmp_path / title).write_text(code)
    tools = Path(sys.executable).parent

    def run(*command):
        result = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=120)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    run(
        tools / "cmake",
        "-S",
        tmp_path,
        "-B",
        tmp_path / "build",
        "-G",
        "Ninja",
        f"-DCMAKE_MAKE_PROGRAM={tools / 'ninja'}",
        f"-DCMAKE_PREFIX_PATH={treescan.get_cmake_dir()}",
    )
    run(tools / "cmake", "--build", tmp_path / "build")
    wanted = files["what both print"]
    assert run(tmp_path / "build/smooth_c") == wanted
    assert run(tmp_path / "build/smooth_cpp") == wanted


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pictures_are_what_the_library_draws(tmp_path):
    load(ROOT / "tools/site/pictures.py").main(tmp_path)
    drawn = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert drawn == {path.name: path.read_text() for path in (DOCS / "pictures").iterdir()}
    assert max(map(len, drawn.values())) < 40_000


def test_c_reference_is_whole():
    header = (ROOT / "cpp/include/treescan/treescan.h").read_text()
    page = load(ROOT / "tools/site/c_reference.py").page(header)
    headings = set(re.findall(r"^### (\w+)", page, re.MULTILINE))
    functions = set(re.findall(r"^TREESCAN_API [\w *]*?(treescan_\w+)\(", header, re.MULTILINE))
    types = set(re.findall(r"^typedef (?:enum|struct) (treescan_\w+)", header, re.MULTILINE))
    assert len(functions) > 20 and functions | types <= headings
    assert "TREESCAN_API" not in page


def test_python_reference_is_whole():
    """Every public name has its place in the reference."""
    text = "\n".join(path.read_text() for path in (DOCS / "reference").glob("*.md"))
    shown = set(re.findall(r"^(?:::: ?|::: )([\w.]+)", text, re.MULTILINE))
    listed = {re.sub(r"^.*\.", "", entry) for entry in shown} | set(re.findall(r"^ +- (\w+)$", text, re.MULTILINE))
    listed |= set(re.findall(r"^\| `treescan\.(\w+)`", text, re.MULTILINE))
    public = [*treescan.__all__, *treescan.nn.__all__, *treescan.compat.__all__, *treescan.reference.__all__]
    assert not set(public) - listed, sorted(set(public) - listed)


def test_links_of_the_repository():
    """Links between files, and to headings in them, as a reader of the repository follows them."""
    for page in [*PAGES, ROOT / "README.md"]:
        text = re.sub(r"^ *```.*?^ *```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
        for link in re.findall(r"\]\(([^)\s]+)\)", text):
            if re.match(r"https?://[^/\s]+\.[^/\s]+|mailto:", link):
                continue
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            # reference/c.md is made with the site, cuda.md once by its own measurements.
            made = str(target.relative_to(ROOT)) in ("docs/reference/c.md", "docs/cuda.md")
            assert made or target.exists(), f"{name(page)} links to {link}"
            if anchor and target.suffix == ".md" and "." not in anchor and not made:
                headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
                assert anchor in map(slug, headings), f"{name(page)} links to {link}"


def slug(heading):
    return re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).strip().replace(" ", "-")


def test_old_calls_exist():
    """The tables of old and new calls name what there is."""
    text = (DOCS / "guides/moving.md").read_text()
    names = set(re.findall(r"`(treescan(?:\.\w+)+)", text))
    names |= {
        f"treescan.compat.{module}.{old}"
        for module, part in zip(("tree_scan", "tree_scan_lan"), text.split("## GrootVL's ")[1:], strict=True)
        for old in re.findall(r"`_C\.(\w+)", part.split("\n## ")[0])
    }
    assert len(names) > 20
    for dotted in names:
        value = treescan
        for part in dotted.split(".")[1:]:
            value = getattr(value, part)


STUB = ROOT / "treescan/_C.pyi"


def test_stub_of_the_native_module():
    """treescan/_C.pyi has the module's names and, for its functions, their arguments' number and types' kinds."""
    native = sys.modules["treescan._C"]
    stub = ast.parse(STUB.read_text())
    functions = {node.name: node for node in stub.body if isinstance(node, ast.FunctionDef)}
    values = {node.target.id: ast.unparse(node.annotation) for node in stub.body if isinstance(node, ast.AnnAssign)}
    present = {key for key in vars(native) if not key.startswith("_")}
    assert set(functions) | set(values) == present
    for key, kind in values.items():
        assert type(getattr(native, key)).__name__ == kind.split("[")[0], key
    plain = {"int": "int", "str": "str", "bool": "bool", "None": "None", "object": "object"}
    for key, node in functions.items():
        signature = getattr(native, key).__doc__.splitlines()[0]
        arguments = re.match(rf"{key}\((.*)\) -> (.*)$", signature)
        theirs = [re.match(r"\s*arg\d+: (.*)", part).group(1) for part in split(arguments.group(1))]
        ours = [ast.unparse(argument.annotation) for argument in node.args.posonlyargs]
        assert not node.args.args and len(theirs) == len(ours), f"{key}: {signature}"
        for wanted, found in zip(theirs, ours):
            simple = re.sub(r"typing\.SupportsInt( \| typing\.SupportsIndex)?|SupportsInt", "int", wanted)
            if simple in plain and simple != "object":
                assert found == plain[simple], f"{key}: {wanted} is {found} in the stub"
            assert ("None" in wanted) == ("None" in found) or wanted == "object" or "Sequence" in wanted, f"{key}: {wanted}"
        assert plain.get(arguments.group(2), ast.unparse(node.returns)) == ast.unparse(node.returns), signature


def split(arguments):
    """At the commas outside of brackets."""
    depth, parts = 0, [""]
    for character in arguments:
        depth += (character in "[(") - (character in "])")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part for part in parts if part.strip()]


def test_versions_agree():
    """What the documents say of versions is what pyproject.toml says."""
    version = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE).group(1)
    assert version == treescan.__version__
    assert f"project(treescan VERSION {version} " in (ROOT / "CMakeLists.txt").read_text()
    header = (ROOT / "cpp/include/treescan/treescan.h").read_text()
    assert ".".join(re.findall(r"^#define TREESCAN_VERSION_M?[A-Z]+ (\d+)$", header, re.MULTILINE)) == version
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()
    assert f"version: {version}" in (ROOT / "CITATION.cff").read_text()
