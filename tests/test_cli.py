"""The command line, run as people run it: pictures of every kind, mistakes, and the help's own examples."""

import io
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
import torch
from PIL import Image, ImageCms, PngImagePlugin

from treescan.cli import _COMMANDS, affinity, filter, main, picture, progress, tree


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


def filtered(source, target, *extra, sigma="1e-6"):
    """The default sigma smooths equal pixels only: what comes out is what went in."""
    assert main(["filter", str(source), "-o", str(target), "--sigma", sigma, *extra]) == 0
    return target


def same(left, right):
    left, right = numpy.asarray(left), numpy.asarray(right)
    assert left.shape == right.shape
    numpy.testing.assert_array_equal(left, right)


RANDOM = numpy.random.default_rng(5)
KINDS = {mode: RANDOM.integers(0, 256, (11, 13, channels)).astype("uint8")
         for mode, channels in (("L", 1), ("LA", 2), ("P", 1), ("RGB", 3), ("RGBA", 4), ("CMYK", 4), ("YCbCr", 3), ("LAB", 3))}


def of_mode(mode):
    if mode == "1":
        return Image.fromarray(RANDOM.integers(0, 2, (11, 13)).astype(bool))
    if mode in ("I;16", "I;16B"):
        return Image.frombytes(mode, (13, 11), RANDOM.integers(0, 65536, (11, 13)).astype("<u2").tobytes())
    if mode == "I":
        return Image.fromarray(RANDOM.integers(-2**31, 2**31, (11, 13)).astype("int32"))
    if mode == "F":
        return Image.fromarray((50 * RANDOM.normal(size=(11, 13))).astype("float32"))
    image = Image.frombytes(mode, (13, 11), KINDS[mode].tobytes())
    if mode == "P":
        image.putpalette(RANDOM.integers(0, 256, 768).astype("uint8").tobytes())
    return image


@pytest.mark.parametrize(("suffix", "modes"), [
    ("png", "1 L LA P RGB RGBA I;16"), ("tiff", "1 L LA P RGB RGBA CMYK YCbCr LAB I;16 I;16B I F"), ("webp", "RGB RGBA"),
    ("gif", "P L"), ("bmp", "1 L P RGB"), ("ppm", "1 L RGB I;16"), ("pfm", "F"), ("tga", "L LA P RGB RGBA"),
    ("jp2", "L LA RGB RGBA I;16")])
def test_modes_come_back(suffix, modes, tmp_path):
    for mode in modes.split():
        source = tmp_path / f"in.{suffix}"
        of_mode(mode).save(source, **({"lossless": True, "exact": True} if suffix == "webp" else {}))
        with Image.open(source) as before, Image.open(filtered(source, tmp_path / f"out.{suffix}")) as after:
            assert after.mode.removesuffix("B") == before.mode.removesuffix("B") or suffix == "gif", mode
            same(*(image.convert("RGBA") if image.mode == "P" else image for image in (before, after)))


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float16", "float32", "float64"])
def test_tiffs_of_every_type_come_back(dtype, tmp_path):
    tifffile = pytest.importorskip("tifffile")
    for shape in ((11, 13), (11, 13, 2), (11, 13, 3), (11, 13, 4), (11, 13, 5)):
        for order in "<>":
            if numpy.dtype(dtype).kind == "f":
                values = (50 * RANDOM.normal(size=shape)).astype(dtype)
            else:
                limits = numpy.iinfo(dtype)
                values = RANDOM.integers(limits.min, limits.max, shape, endpoint=True).astype(dtype)
            colour = len(shape) == 3 and shape[2] in (3, 4)
            tifffile.imwrite(tmp_path / "in.tif", values, byteorder=order, photometric="rgb" if colour else "minisblack",
                             planarconfig="contig" if len(shape) == 3 else None, metadata=None)
            found = tifffile.imread(filtered(tmp_path / "in.tif", tmp_path / "out.tif"))
            assert found.dtype == values.dtype
            same(found, values)
            assert main(["tree", str(tmp_path / "in.tif"), "-o", str(tmp_path / "tree.png")]) == 0


@pytest.mark.parametrize("channels", [3, 4])
def test_colours_of_16_bits_come_back(channels, tmp_path):
    cv2 = pytest.importorskip("cv2")
    values = RANDOM.integers(0, 65536, (11, 13, channels)).astype("uint16")
    cv2.imwrite(str(tmp_path / "in.png"), values)
    same(cv2.imread(str(filtered(tmp_path / "in.png", tmp_path / "out.png")), -1), values)
    same(cv2.imread(str(filtered(tmp_path / "in.png", tmp_path / "out.tiff")), -1), values)
    same(cv2.imread(str(filtered(tmp_path / "out.tiff", tmp_path / "back.png")), -1), values)


def test_grey_with_alpha_of_16_bits_comes_back(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    values = RANDOM.integers(1, 65536, (11, 13, 2)).astype("uint16")
    tifffile.imwrite(tmp_path / "in.tif", values, photometric="minisblack", extrasamples=["unassalpha"], metadata=None,
                     planarconfig="contig")
    filtered(tmp_path / "in.tif", tmp_path / "out.png")
    same(tifffile.imread(filtered(tmp_path / "out.png", tmp_path / "back.tif")), values)


def test_sixteen_bits_are_never_stretched(tmp_path):
    for low, high in ((32768, 32768), (30000, 31000), (0, 65535)):
        values = numpy.linspace(low, high, 12 * 16).reshape(12, 16).astype("uint16")
        for suffix in ("png", "tiff"):
            Image.fromarray(values).save(tmp_path / f"in.{suffix}")
            with Image.open(filtered(tmp_path / f"in.{suffix}", tmp_path / "out.png")) as kept:
                assert kept.mode.startswith("I")
                same(kept, values)
            with Image.open(filtered(tmp_path / f"in.{suffix}", tmp_path / "eight.png", "--depth", "8")) as eight:
                assert eight.mode == "L"
                same(eight, (values / 257).round().astype("uint8"))
            shown = picture.read(str(tmp_path / f"in.{suffix}"))
            assert torch.allclose(shown[0, 0], torch.from_numpy(values / 65535).float())


@pytest.mark.parametrize("connectivity", [4, 8])
def test_means_against_float64(connectivity, tmp_path):
    """Dense distances along the tree of float64 costs; all differences are distinct, so there is one tree."""
    values = RANDOM.permutation(65536)[:7 * 9].reshape(7, 9).astype("uint16")
    Image.fromarray(values).save(tmp_path / "in.png")
    with Image.open(filtered(tmp_path / "in.png", tmp_path / "out.png", "--connectivity", str(connectivity),
                             sigma="0.3")) as image:
        found = numpy.asarray(image).astype(float)
    places = [(y, x) for y in range(7) for x in range(9)]
    cost = numpy.zeros((63, 63))
    for i, (y, x) in enumerate(places):
        for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1))[:2 if connectivity == 4 else 4]:
            if y + dy < 7 and 0 <= x + dx < 9:
                cost[i, (y + dy) * 9 + x + dx] = ((float(values[y, x]) - float(values[y + dy, x + dx])) / 65535)**2
    graph = pytest.importorskip("scipy.sparse.csgraph")
    distance = graph.shortest_path(graph.minimum_spanning_tree(cost), directed=False)
    share = numpy.exp(-distance / 0.3**2)
    wanted = (share @ values.ravel() / share.sum(1)).reshape(7, 9)
    assert abs(found - wanted).max() <= 0.5 + 1e-6


def test_hidden_colours_stay_hidden(tmp_path):
    values = numpy.full((8, 8, 4), (100, 110, 120, 255), "uint8")
    values[:, 4:] = 255, 0, 0, 0
    Image.fromarray(values).save(tmp_path / "in.png")
    with Image.open(filtered(tmp_path / "in.png", tmp_path / "out.png", sigma="9")) as image:
        same(image, values)
    palette = Image.fromarray(values[..., :3]).quantize(4)
    hidden = palette.getpixel((7, 0))
    palette.save(tmp_path / "palette.png", transparency=hidden)
    with Image.open(filtered(tmp_path / "palette.png", tmp_path / "out.png", sigma="9")) as image:
        assert image.mode == "P"
        same(image.convert("RGBA"), values)
    grey = RANDOM.integers(0, 256, (9, 9)).astype("uint8")
    Image.fromarray(grey).save(tmp_path / "key.png", transparency=int(grey[0, 0]))
    with Image.open(filtered(tmp_path / "key.png", tmp_path / "out.png", sigma="0.5")) as image:
        assert image.mode == "L" and image.info["transparency"] == grey[0, 0]
        same(numpy.asarray(image) == grey[0, 0], grey == grey[0, 0])


def test_nan_and_infinity_stay_where_they_are(tmp_path):
    values = numpy.full((6, 7), 0.5, "float32")
    values[1, 2], values[3, 4], values[5, 6], values[0] = numpy.nan, numpy.inf, -numpy.inf, -3
    Image.fromarray(values).save(tmp_path / "in.tif")
    with Image.open(filtered(tmp_path / "in.tif", tmp_path / "out.tif", sigma="0.1")) as image:
        same(image, values)
    for name, extra in (("tree", []), ("affinity", ["--at", "0,0"])):
        assert main([name, str(tmp_path / "in.tif"), "-o", str(tmp_path / "drawn.png"), *extra]) == 0
    assert picture.read(str(tmp_path / "in.tif")).isfinite().all()
    assert main(["affinity", str(tmp_path / "in.tif"), "-o", str(tmp_path / "drawn.png"), "--at", "2,1"]) == 1


@pytest.mark.parametrize("source", ["png", "jpg", "tiff", "webp"])
@pytest.mark.parametrize("target", ["png", "jpg", "tiff", "webp"])
def test_profile_resolution_and_exif_are_kept(source, target, tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x0112], exif[271] = 6, "Maker"
    exif.get_ifd(0x8769)[0x9003] = "2020:01:01 00:00:00"
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Title", "hello")
    of_mode("RGB").save(tmp_path / f"in.{source}", icc_profile=profile, dpi=(300, 300), exif=exif.tobytes(),
                        **({"pnginfo": texts} if source == "png" else {}))
    with Image.open(filtered(tmp_path / f"in.{source}", tmp_path / f"out.{target}")) as image:
        image.load()
        found = image.getexif()
        assert image.size == (11, 13) and image.info["icc_profile"] == profile
        assert (found.get(0x0112, 1), found[271]) == (1, "Maker")
        assert found.get_ifd(0x8769)[0x9003] == "2020:01:01 00:00:00"
        if "webp" not in (source, target):
            assert image.info["dpi"] == pytest.approx((300, 300), abs=0.01)
        if source == target == "png":
            assert image.text == {"Title": "hello"}


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tiff"])
def test_frames(suffix, tmp_path, capsys):
    frames = [Image.fromarray(numpy.roll(KINDS["RGB"], step, 0)) for step in range(3)]
    source = tmp_path / f"in.{suffix}"
    timing = {} if suffix == "tiff" else {"duration": [100, 200, 300], "loop": 3}
    lossless = {"lossless": True} if suffix == "webp" else {}
    frames[0].save(source, save_all=True, append_images=frames[1:], **timing, **lossless)
    with Image.open(source) as before, Image.open(filtered(source, tmp_path / f"out.{suffix}", "--all-frames")) as after:
        assert after.n_frames == 3
        for index in range(3):
            before.seek(index), after.seek(index)
            same(before.convert("RGB"), after.convert("RGB"))
            if timing:
                assert (after.info["duration"], after.info["loop"]) == (timing["duration"][index], 3)
        assert "frame 1 of 3" not in capsys.readouterr().out
        before.seek(1)
        with Image.open(filtered(source, tmp_path / "one.png", "--frame", "1")) as one:
            same(before.convert("RGB"), one.convert("RGB"))
    assert "frame 1 of 3" in capsys.readouterr().out
    for extra, message in ((["--frame", "3"], "must be below 3"), (["--frame", "1", "--all-frames"], "exclude each other")):
        assert main(["filter", str(source), "-o", str(tmp_path / "one.png"), *extra]) == 1
        assert message in capsys.readouterr().err
    assert main(["filter", str(source), "-o", str(tmp_path / "one.jpg"), "--all-frames"]) == 1
    assert "jpg holds one picture" in capsys.readouterr().err


@pytest.mark.parametrize(("mode", "source", "target", "message"), [
    ("I;16", "png", "jpg", "doesn't hold 16-bit grey, png, tiff and jp2 do; --depth 8"), ("F", "tiff", "png", "tiff does"),
    ("RGBA", "png", "jpg", "with alpha, png, tiff, webp"), ("CMYK", "tiff", "png", "CMYK, tiff, jpg and jp2 do"),
    ("L", "png", "webp", "8-bit grey"), ("RGB", "png", "gif", "8-bit RGB"), ("P", "png", "jpg", "palette")])
def test_what_a_format_cant_hold_is_refused(mode, source, target, message, tmp_path, capsys):
    of_mode(mode).save(tmp_path / f"in.{source}")
    assert main(["filter", str(tmp_path / f"in.{source}"), "-o", str(tmp_path / f"out.{target}")]) == 1
    assert message in capsys.readouterr().err and not (tmp_path / f"out.{target}").exists()


def test_depths_that_pillow_narrows_are_refused(tmp_path, capsys):
    (tmp_path / "in.ppm").write_bytes(b"P6 2 1 65535\n" + bytes(range(12)))
    assert main(["filter", str(tmp_path / "in.ppm"), "-o", str(tmp_path / "out.png")]) == 1
    assert "16 bits a channel, of which Pillow reads 8" in capsys.readouterr().err


def test_too_little_memory_is_said_before(photo, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(progress, "available_memory", lambda: 100_000)
    for name, extra in (("filter", []), ("affinity", ["--at", "1,1"])):
        assert main([name, str(photo), "-o", str(tmp_path / "out.png"), *extra]) == 1
        assert "needs about" in capsys.readouterr().err


def promised(name, channels, deep):
    return {"filter": filter.bytes_per_pixel(4), "affinity": affinity.bytes_per_pixel,
            "tree": tree.bytes_per_pixel}[name](channels, deep, False)


MEMORY = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux forgets a peak")


@MEMORY
@pytest.mark.parametrize("size", [(3000, 2000), pytest.param((6000, 4000), marks=pytest.mark.skipif(
    "TREESCAN_LARGE" not in os.environ, reason="half a minute: TREESCAN_LARGE=1 runs it"))])
@pytest.mark.parametrize("name", ["filter", "affinity", "tree"])
def test_peak_memory_is_what_the_docs_promise(name, size, tmp_path):
    width, height = size
    noise = RANDOM.integers(0, 60, (height, width, 3))
    Image.fromarray((noise + numpy.linspace(0, 190, width)[None, :, None]).astype("uint8")).save(tmp_path / "in.bmp")
    result = run(name, tmp_path / "in.bmp", "-o", tmp_path / "out.png", "--verbose",
                 *(["--at", "9,9"] if name == "affinity" else []))
    assert result.returncode == 0, result.stderr
    peak = 1e6 * float(re.search(r"peak memory +([\d.]+) MB", result.stdout).group(1))
    overhead = 30e6 if width < 6000 else 0  # what doesn't grow with the picture
    wanted = promised(name, 3, 1) * width * height
    assert 0.9 * wanted <= peak <= 1.1 * wanted + overhead, (peak / width / height, promised(name, 3, 1))


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
@pytest.mark.parametrize("name", ["filter", "tree", "affinity", "demo"])
def test_progress_on_a_terminal(name, photo, tmp_path):
    import pty

    arguments = ["-o", str(tmp_path / "out.png")] + ([] if name == "demo" else [str(photo)])
    arguments += ["--at", "1,1"] if name == "affinity" else []
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "treescan", name, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs) as program:
        os.close(theirs)
        shown = io.BytesIO()
        try:
            while part := os.read(ours, 4096):
                shown.write(part)
        except OSError:  # the other end is closed
            pass
        program.communicate(timeout=120)
    os.close(ours)
    assert program.returncode == 0
    assert {"demo": b"affinity", "filter": b"scan", "tree": b"drawing", "affinity": b"scanning"}[name] in shown.getvalue()
