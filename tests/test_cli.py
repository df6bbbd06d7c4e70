"""The command line, run as people run it: pictures of every kind, mistakes, and the help's own examples."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time

import numpy
import pytest
from PIL import Image

from treescan.cli import _COMMANDS, main, picture


def run(*arguments, folder=None):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, "-m", "treescan", *map(str, arguments)], cwd=folder, capture_output=True,
                          text=True, env=environment, timeout=120)


@pytest.fixture
def photo(tmp_path):
    rows, columns = numpy.mgrid[:60, :80]
    values = numpy.stack((rows * 3, columns * 3, 40 + 100 * (columns > 40)), -1)
    path = tmp_path / "photo.jpg"
    Image.fromarray(values.astype("uint8")).save(path)
    return path


def test_help_lists_every_command():
    text = run("--help").stdout
    for name, module in _COMMANDS.items():
        assert re.search(rf"{name}\s+{re.escape(module.HELP)}", text)


@pytest.mark.parametrize("name", ["filter", "tree", "affinity", "info"])
def test_help_examples_run(name, photo, capsys, monkeypatch):
    monkeypatch.chdir(photo.parent)
    assert main([name, "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    example = _COMMANDS[name].EXAMPLE
    assert f"example: {example}" in text
    words = shlex.split(example)
    assert words[0] == "treescan" and main(words[1:]) == 0
    if "-o" in words:
        with Image.open(words[words.index("-o") + 1]) as image:
            assert min(image.size) > 1


def test_filter_smooths_and_keeps_edges(tmp_path):
    noise = numpy.random.default_rng(0).integers(-12, 13, (40, 40, 3))
    step = numpy.where(numpy.arange(40)[None, :, None] < 20, 60, 190)
    Image.fromarray((step + noise).astype("uint8")).save(tmp_path / "in.png")
    assert main(["filter", str(tmp_path / "in.png"), "-o", str(tmp_path / "out.png"), "--sigma", "0.2"]) == 0
    result = numpy.asarray(Image.open(tmp_path / "out.png")).astype(float)
    assert result.shape == (40, 40, 3)
    assert result[:, :18].std() < 0.6 * (step + noise)[:, :18].std()
    assert result[:, 22:].mean() - result[:, :18].mean() > 120


@pytest.mark.parametrize(("mode", "suffix"), [("L", "png"), ("LA", "png"), ("P", "png"), ("RGBA", "png"), ("1", "png"),
                                              ("CMYK", "jpg"), ("I;16", "png"), ("F", "tiff"), ("RGB", "webp")])
def test_every_kind_of_picture(mode, suffix, tmp_path):
    values = numpy.arange(7 * 9).reshape(7, 9)
    if mode == "I;16":
        image = Image.fromarray((values * 1000).astype("uint16"))
    elif mode == "F":
        image = Image.fromarray(values.astype("float32"))
    else:
        image = Image.fromarray((values * 4).astype("uint8")).convert("RGB").convert(mode)
    image.save(tmp_path / f"in.{suffix}")
    assert picture.read(str(tmp_path / f"in.{suffix}")).shape == (1, 3, 7, 9)
    assert main(["filter", str(tmp_path / f"in.{suffix}"), "-o", str(tmp_path / f"out.{suffix}")]) == 0
    for name, extra in (("tree", []), ("affinity", ["--at", "3,2"])):
        assert main([name, str(tmp_path / f"in.{suffix}"), "-o", str(tmp_path / "drawn.png"), *extra]) == 0


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (5, 1)])
def test_tiny_pictures(size, tmp_path):
    Image.new("RGB", size, "red").save(tmp_path / "in.png")
    for name, extra in (("filter", []), ("tree", []), ("affinity", ["--at", "0,0"])):
        assert main([name, str(tmp_path / "in.png"), "-o", str(tmp_path / f"{name}.png"), *extra]) == 0


def test_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera lay on its side
    Image.new("RGB", (4, 3)).save(tmp_path / "in.jpg", exif=exif)
    assert picture.read(str(tmp_path / "in.jpg")).shape == (1, 3, 4, 3)


def test_mistakes_are_one_line(photo, tmp_path, capsys, monkeypatch):
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "cut.jpg").write_bytes(photo.read_bytes()[:300])
    (tmp_path / "empty.png").write_bytes(b"")
    out = ["-o", str(tmp_path / "out.png")]
    cases = [
        (["filter", str(tmp_path / "no.jpg"), *out], "doesn't exist"),
        (["filter", str(tmp_path), *out], "is a folder"),
        (["filter", str(tmp_path / "text.png"), *out], "not a picture"),
        (["filter", str(tmp_path / "empty.png"), *out], "not a picture"),
        (["filter", str(tmp_path / "cut.jpg"), *out], "can't be read"),
        (["filter", str(photo), "-o", str(tmp_path / "no" / "out.png")], "can't be written"),
        (["filter", str(photo), "-o", str(tmp_path / "out.xyz")], "can't be written"),
        (["tree", str(photo), "-o", str(tmp_path / "out.xyz")], "can't be written"),
        (["affinity", str(photo), "--at", "80,0", *out], "80 x 60 pixels, got 80,0"),
        (["demo", "-o", str(photo)], "can't be made"),
    ]
    for arguments, message in cases:
        assert main(arguments) == 1
        error = capsys.readouterr().err.strip()
        assert message in error and len(error.splitlines()) == 1 and error.startswith("treescan: ")
    monkeypatch.setattr(picture, "MAX_PIXELS", 100)
    assert main(["filter", str(photo), *out]) == 1
    assert "expected at most 100" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["nothing"], ["filter"], ["filter", "x.png"], ["affinity", "x", "--at", "3", "-o", "y"],
                                       ["affinity", "x", "--at", "3,b", "-o", "y"],
                                       ["filter", "x", "-o", "y", "--sigma", "0"], ["tree", "x", "-o", "y", "--size", "1"]])
def test_wrong_calls(arguments, capsys):
    assert main(arguments) == 2
    assert "usage: treescan" in capsys.readouterr().err


def test_missing_dependency(photo, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    assert main(["filter", str(photo), "-o", "out.png"]) == 1
    assert "pip install 'treescan[cli]'" in capsys.readouterr().err


def test_interruption(capsys, monkeypatch):
    def interrupted(options):
        raise KeyboardInterrupt

    monkeypatch.setattr(_COMMANDS["info"], "run", interrupted)
    assert main(["info"]) == 130
    assert capsys.readouterr().err == "treescan: interrupted\n"


def test_info_as_json():
    facts = json.loads(run("info", "--json").stdout)
    assert facts["version"] == "0.1.0" and "cpu" in facts["library"] and facts["threads"] >= 1


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGINT to one process")
@pytest.mark.parametrize(("name", "delay"), [("filter", 0.5), ("tree", 0.3)])
def test_ctrl_c(name, delay, tmp_path):
    """One line, status 130, and the file that was there before; the call that runs is waited for."""
    Image.fromarray(numpy.random.default_rng(0).integers(0, 256, (2000, 3000, 3)).astype("uint8")).save(tmp_path / "in.png")
    (tmp_path / "out.png").write_text("what was there")
    code = "import sys, treescan.cli; print('ready', flush=True); sys.exit(treescan.cli.main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, name, tmp_path / "in.png", "-o", tmp_path / "out.png"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        assert program.stdout.readline() == "ready\n"
        time.sleep(delay)
        program.send_signal(signal.SIGINT)
        error = program.communicate(timeout=60)[1]
    assert (program.returncode, error) == (130, "treescan: interrupted\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.png", "out.png"]
    assert (tmp_path / "out.png").read_text() == "what was there"


def test_a_picture_is_written_whole_or_not_at_all(tmp_path):
    (tmp_path / "link.png").symlink_to(tmp_path / "out.png")
    with pytest.raises(picture.Problem, match="link.png can't be written: no room"):
        with picture.whole_file(str(tmp_path / "link.png")) as place:
            place.write_text("half")
            raise OSError(28, "no room")
    assert [path.name for path in tmp_path.iterdir()] == ["link.png"]
    with picture.whole_file(str(tmp_path / "link.png")) as place:
        place.write_text("whole")
    assert (tmp_path / "out.png").read_text() == "whole" and (tmp_path / "link.png").is_symlink()
    assert len(list(tmp_path.iterdir())) == 2


def test_a_reader_that_goes_away():
    command = f"{shlex.quote(sys.executable)} -m treescan info | true"
    assert "Traceback" not in subprocess.run(command, shell=True, capture_output=True, text=True, timeout=120).stderr


def test_demo(tmp_path):
    result = run("demo", "-o", tmp_path / "demo")
    assert result.returncode == 0, result.stderr
    for name in ("photograph", "filtered", "tree", "affinity"):
        assert (tmp_path / "demo" / f"{name}.png").stat().st_size > 10_000
    assert re.search(r"tree +\d+\.\d ms", result.stdout)
