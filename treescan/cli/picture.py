"""Pictures as they are in their files, and what every command that takes one shares."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from .problem import Problem, need
from .progress import check_memory

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[Any]

# More is refused before it is unpacked: a small file can claim any size.
MAX_PIXELS = 100_000_000

# (colour channels, bytes of a channel, whether there is alpha) -> bytes of memory for one pixel
Cost = Callable[[int, int, bool], float]


@dataclass
class Picture:
    """What a file holds, upright and in the file's own numbers.

    colours: (H, W, channels) of bool, an integer or a real type; of a palette's picture what its indices name.
    space: what the channels are: "1" (black and white), "L" (grey), "RGB", "CMYK", "YCbCr", "LAB", "P" (RGB out of a
        palette) or "bands" (anything else that a TIFF holds).
    alpha: (H, W) of the colours' type, or None.
    indices, palette: of "P", (H, W) and (at most 256, 4) RGBA, both uint8.
    format: Pillow's name of the file's format.
    information: what else is kept: icc_profile, dpi, exif, text and their like, under Pillow's names.
    """

    colours: Array
    space: str
    alpha: Array | None = None
    indices: Array | None = None
    palette: Array | None = None
    format: str = "PNG"
    information: dict[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.colours.shape[1], self.colours.shape[0]

    @property
    def name(self) -> str:
        """What the picture is, in words."""
        words = {"1": "black-and-white", "L": "grey", "P": "palette", "bands": f"{self.colours.shape[2]}-band"}
        kind = self.colours.dtype.kind
        bits = "" if kind == "b" or self.space == "P" else f"{8 * self.colours.itemsize}-bit "
        number = {"f": "real ", "i": "signed "}.get(kind, "")
        return f"{bits}{number}{words.get(self.space, self.space)}" + (" with alpha" if self.alpha is not None else "")

    @property
    def stored_alpha(self) -> Array | None:
        """Alpha that is a channel of the file, not a colour that stands for it."""
        return None if "transparency" in self.information else self.alpha

    @property
    def full(self) -> float:
        """What a difference of 1 is in the file's numbers: the whole range of an integer type, 1 of a real one."""
        kind = self.colours.dtype.kind
        return float(2 ** (8 * self.colours.itemsize) - 1) if kind in "iu" else 1.0

    def valid(self) -> Array | None:
        """(H, W) bool: the pixels that have a colour. Transparent ones have none, and neither have NaN and infinity."""
        found: Array | None = None if self.alpha is None else self.alpha > 0
        if self.colours.dtype.kind == "f":
            finite = numpy.isfinite(self.colours).all(-1)
            found = numpy.asarray(finite if found is None else found & finite)
        return None if found is None or found.all() else found

    def channel(self, index: int, valid: Array | None, dtype: str = "float64") -> Tensor:
        """One channel in units of `full`, 0 where it isn't valid: (H, W)."""
        plane = self.colours[..., index].astype(dtype)
        if valid is not None:
            plane[~valid] = 0
        if self.full != 1:
            plane /= self.full
        return torch.from_numpy(plane)

    def features(self, valid: Array | None) -> Tensor:
        """(1, channels, H, W): what the costs of edges are computed from; float32 holds 8 bits, not all that has more."""
        dtype = "float32" if self.colours.itemsize == 1 else "float64"
        found = torch.empty((1, self.colours.shape[2], *self.colours.shape[:2]), dtype=getattr(torch, dtype))
        for index in range(self.colours.shape[2]):
            found[0, index] = self.channel(index, valid, dtype)
        return found

    def weight(self, valid: Array | None) -> Tensor | None:
        """(1, 1, H, W) float64: how much a pixel counts in a mean, its opacity; None for 1 everywhere."""
        if self.alpha is None and valid is None:
            return None
        opacity = numpy.ones(self.colours.shape[:2]) if self.alpha is None else self.alpha / most(self.alpha.dtype)
        if valid is not None:
            opacity[~valid] = 0
        return torch.from_numpy(opacity.astype("float64", copy=False))[None, None]

    def mask(self, valid: Array | None) -> Tensor | None:
        return None if valid is None else torch.from_numpy(valid)[None]

    def shown(self) -> Tensor:
        """(1, 3, H, W) float32 in [0, 1] for the eye: integers over the whole range of their type, real numbers as they are
        where all of them lie in [0, 1] and otherwise from the smallest to the largest; what has no colour on white."""
        valid = self.valid()
        if self.space in ("CMYK", "YCbCr", "LAB"):
            colours = _in_rgb(self)
        else:
            colours = self.colours[..., :3] if self.colours.shape[2] >= 3 else self.colours[..., :1]
        low, high = 0.0, 1.0
        if colours.dtype.kind in "iu":
            low, high = float(numpy.iinfo(colours.dtype).min), float(numpy.iinfo(colours.dtype).max)
        elif colours.dtype.kind == "f":
            seen = colours if valid is None else colours[valid]
            least, largest = (float(seen.min()), float(seen.max())) if seen.size else (0.0, 1.0)
            if least < 0 or largest > 1:
                low, high = least, largest if largest > least else least + 1
        opacity = None if self.alpha is None else (self.alpha / most(self.alpha.dtype)).clip(0, 1).astype("float32")
        found = torch.empty(1, colours.shape[2], *colours.shape[:2])
        for index, plane in enumerate(found[0].numpy()):
            numpy.subtract(colours[..., index], low, out=plane, dtype="float32" if colours.itemsize == 1 else "float64",
                           casting="same_kind")
            plane /= high - low
            if opacity is not None:
                plane *= opacity
                plane += 1 - opacity
            if valid is not None:
                plane[~valid] = 1
        return found.expand(1, 3, -1, -1)


def most(dtype: numpy.dtype[Any]) -> float:
    """What an opaque pixel's alpha is."""
    return float(numpy.iinfo(dtype).max) if dtype.kind in "iu" else 1.0


def _in_rgb(picture: Picture) -> Array:
    image = as_pillow(replace(picture, colours=eight_bits(picture.colours), alpha=None))
    if picture.space == "LAB":
        management = need("PIL.ImageCms")
        profiles = management.createProfile("LAB"), management.createProfile("sRGB")
        image = management.profileToProfile(image, *profiles, outputMode="RGB")
    return numpy.asarray(image.convert("RGB"))


def eight_bits(colours: Array) -> Array:
    """Integers over the whole range of their type, real numbers of [0, 1] as shares of 255."""
    if colours.itemsize == 1 and colours.dtype.kind in "bu":
        return colours
    low, high = 0.0, 1.0
    if colours.dtype.kind in "iu":
        low, high = float(numpy.iinfo(colours.dtype).min), float(numpy.iinfo(colours.dtype).max)
    shares = (colours.astype("float64") - low) / (high - low)
    rounded: Array = (numpy.nan_to_num(shares).clip(0, 1) * 255).round().astype("uint8")
    return rounded


def as_pillow(picture: Picture) -> Any:
    """Pillow's picture of one that Pillow has a mode for."""
    image_module = need("PIL.Image")
    colours = picture.colours
    if picture.space == "P":
        assert picture.indices is not None and picture.palette is not None
        image = image_module.frombytes("P", picture.size, picture.indices.tobytes())
        image.putpalette(picture.palette[:, :3].tobytes())
        return image
    if picture.space == "LAB":
        colours = colours ^ numpy.array([0, 128, 128], "uint8")
    if picture.stored_alpha is not None:
        colours = numpy.concatenate([colours, picture.stored_alpha[..., None]], 2)
    if picture.space in ("CMYK", "YCbCr", "LAB"):
        return image_module.frombytes(picture.space, picture.size, colours.tobytes())
    return image_module.fromarray(numpy.ascontiguousarray(colours[..., 0] if colours.shape[2] == 1 else colours))


# Pillow's modes: (what the colours are, whether the last channel is alpha).
_MODES = {"1": ("1", False), "L": ("L", False), "LA": ("L", True), "RGB": ("RGB", False), "RGBA": ("RGB", True),
          "CMYK": ("CMYK", False), "YCbCr": ("YCbCr", False), "LAB": ("LAB", False), "I": ("L", False), "F": ("L", False),
          "I;16": ("L", False), "I;16L": ("L", False), "I;16B": ("L", False), "I;16N": ("L", False)}


def count_frames(image: Any) -> int:
    return int(getattr(image, "n_frames", 1))


def read_frames(path: str, frame: int | None = 0, cost: Cost | None = None) -> tuple[list[Picture], int]:
    """The picture that is wanted, or all for None, and how many the file has. `cost` says the bytes that a pixel of so many
    channels, of so many bytes each, is going to take: what doesn't fit is refused before it is unpacked."""
    image_module = need("PIL.Image")
    if Path(path).is_dir():
        raise Problem(f"{path} is a folder, expected a picture")
    try:
        with open(path, "rb") as file:
            start = file.read(4)
        if start in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            return _read_tiff(path, frame, cost)
        with _without_bombs(), image_module.open(path) as image:
            _check_size(path, *image.size)
            count = count_frames(image)
            deep = 2 if ";16" in image.mode + str(image.tile) else 4 if image.mode in "IF" else 1
            channels = 3 if image.mode == "P" else len(image.getbands())
            alpha = image.mode in ("LA", "RGBA") or "transparency" in image.info
            _check_memory(path, image.width * image.height, cost, channels - (image.mode in ("LA", "RGBA")), deep, alpha,
                          count if frame is None else 1)
            pictures = []
            for index in _wanted(path, frame, count):
                image.seek(index)
                pictures.append(_from_pillow(path, image, image.format))
            return pictures, count
    except Problem:
        raise
    except FileNotFoundError:
        raise Problem(f"{path} doesn't exist") from None
    except image_module.UnidentifiedImageError:
        raise Problem(f"{path} is not a picture that Pillow can read") from None
    except (OSError, ValueError, SyntaxError, EOFError, image_module.DecompressionBombError) as error:
        raise Problem(f"{path} can't be read: {error}") from None


def read(path: str, frame: int = 0) -> Tensor:
    """A picture for the eye: (1, 3, H, W) float32 in [0, 1], upright and in RGB; what has no colour is white."""
    return read_frames(path, frame)[0][0].shown()


@contextlib.contextmanager
def _without_bombs() -> Iterator[None]:
    """Pillow warns of large pictures below MAX_PIXELS: they are checked here."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", need("PIL.Image").DecompressionBombWarning)
        yield


def _check_size(path: str, width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise Problem(f"{path} has {width} x {height} pixels, expected at most {MAX_PIXELS}")


def _check_memory(path: str, pixels: int, cost: Cost | None, channels: int, deep: int, alpha: bool, frames: int) -> None:
    if cost is not None:
        others = 2 * (frames - 1) * (channels + alpha) * deep  # what was read and what is to be written
        check_memory(f"{path}, of {pixels} pixels,", pixels * (cost(channels, deep, alpha) + others))


def _wanted(path: str, frame: int | None, count: int) -> range:
    if frame is None:
        return range(count)
    if frame >= count:
        raise Problem(f"--frame must be below {count}, the number of frames in {path}, got {frame}")
    return range(frame, frame + 1)


def _from_pillow(path: str, image: Any, format: str) -> Picture:
    """The frame at which an open file stands."""
    with open(path, "rb") as file:
        start = file.read(65536)
    _refuse_narrowed(path, image, start)
    arguments = image.tile[0].args if image.tile else ""
    raw = arguments if isinstance(arguments, str) else arguments[0] if arguments and isinstance(arguments[0], str) else ""
    image.load()  # what stands behind the pixels is kept too
    information = _information(image, start)
    if ";16" in raw and image.mode in ("RGB", "RGBA", "LA"):
        if count_frames(image) > 1:
            raise Problem(f"{path} is an animation of 16 bits a channel, which Pillow reads as 8: convert it to TIFF")
        deep, alpha = _sixteen_bits(path, image, raw)
        picture = Picture(deep, "RGB" if deep.shape[2] == 3 else "L", alpha, format=format, information=information)
        return _with_colour_key(picture)
    image = need("PIL.ImageOps").exif_transpose(image)
    if image.mode == "P" or format == "GIF":
        return _from_palette(image, format, information)
    if image.mode not in _MODES:
        raise Problem(f"{path} has Pillow's mode {image.mode}, expected one of P, {', '.join(_MODES)}")
    space, has_alpha = _MODES[image.mode]
    values = numpy.array(image)
    if image.mode == "I" and format in ("PNG", "PPM"):  # neither has more than 16 bits
        values = values.astype("uint16")
    if image.mode == "LAB":
        values[..., 1:] ^= 128  # signed numbers, moved to where larger is larger
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    if values.ndim == 2:
        values = values[..., None]
    colours, alpha = (values[..., :-1], values[..., -1]) if has_alpha else (values, None)
    return _with_colour_key(Picture(colours, space, alpha, format=format, information=information))


def _sixteen_bits(path: str, image: Any, raw: str) -> tuple[Array, Array | None]:
    """Colours of 16 bits, of which Pillow unpacks the higher byte: once that, and once the lower one, as if the bytes were
    in the other order."""
    def unpacked(name: str, mode: str) -> Array:
        with _without_bombs(), need("PIL.Image").open(path) as again:
            # A strip or a tile of the file each.
            again.tile = [tile._replace(args=name if isinstance(tile.args, str) else (name, *tile.args[1:]))
                          for tile in again.tile]
            again._mode = mode
            return numpy.array(need("PIL.ImageOps").exif_transpose(again))

    if raw == "LA;16B":  # two bytes of grey and two of alpha are four of anything
        values = unpacked("RGBA", "RGBA").view(">u2").astype("uint16")
        return values[..., :1], values[..., 1]
    swapped = raw[:-1] + {"L": "B", "B": "L", "N": "B" if numpy.little_endian else "L"}[raw[-1]]
    values = unpacked(raw, image.mode).astype("uint16") << 8 | unpacked(swapped, image.mode)
    return values[..., :3], values[..., 3] if image.mode == "RGBA" else None


def _refuse_narrowed(path: str, image: Any, start: bytes) -> None:
    """Files of more than 8 bits a channel that Pillow hands out as 8."""
    bits = 8
    if image.mode in ("L", "LA", "RGB", "RGBA", "YCbCr"):
        if image.format == "JPEG2000" and b"\xff\x4f\xff\x51" in start:  # codestream: Ssiz of the first component
            bits = (start[start.index(b"\xff\x4f\xff\x51") + 42] & 127) + 1
        elif image.format == "AVIF" and b"av1C" in start:
            bits = 10 if start[start.index(b"av1C") + 6] & 64 else 8
        elif image.format == "PPM" and image.tile:
            bits = int(image.tile[0].args[1]).bit_length() if image.tile[0].codec_name != "raw" else 8
        elif image.format == "SGI":
            bits = 8 * start[3]
    if bits > 8:
        raise Problem(f"{path} has {bits} bits a channel, of which Pillow reads 8: convert it to PNG or TIFF of 16 bits")


def _from_palette(image: Any, format: str, information: dict[str, Any]) -> Picture:
    """Frames of a GIF after the first are handed out in RGB; their colours are their palette."""
    module = need("PIL.Image")
    if image.mode == "L":  # a GIF whose palette is all greys
        image = image.convert("RGB")
    if image.mode == "P":
        colours = numpy.array(image.getpalette("RGB"), dtype="uint8").reshape(-1, 3)
        palette = numpy.concatenate([colours, numpy.full((len(colours), 1), 255, "uint8")], 1)
        transparency = image.info.get("transparency")
        if isinstance(transparency, bytes):
            palette[:len(transparency), 3] = numpy.frombuffer(transparency, "uint8")[:len(palette)]
        elif transparency is not None:
            palette[transparency, 3] = 0
        indices = numpy.minimum(numpy.array(image), len(palette) - 1).astype("uint8")
        pixels = palette[indices]
    else:
        pixels = numpy.array(image.convert("RGBA"))
        palette = numpy.unique(pixels.reshape(-1, 4), axis=0)
        if len(palette) > 256:
            reduced = module.fromarray(pixels).quantize(255, method=module.Quantize.FASTOCTREE)
            palette = numpy.array(reduced.getpalette("RGBA"), dtype="uint8").reshape(-1, 4)
        if (pixels[..., 3] == 0).any() and not (palette[:, 3] == 0).any():
            palette = numpy.concatenate([palette, numpy.zeros((1, 4), "uint8")])
        indices = None
    alpha = None if (pixels[..., 3] == 255).all() else pixels[..., 3]
    information.pop("transparency", None)
    return Picture(pixels[..., :3], "P", alpha, indices, palette, format, information)


def _with_colour_key(picture: Picture) -> Picture:
    """A PNG may name one colour as transparent."""
    key = picture.information.get("transparency")
    if picture.alpha is not None or not isinstance(key, (int, tuple)):
        picture.information.pop("transparency", None)
        return picture
    opaque = (picture.colours != numpy.array(key, dtype=picture.colours.dtype)).any(-1)
    return replace(picture, alpha=opaque * numpy.array(most(picture.colours.dtype), picture.colours.dtype))


# Tags that say how the samples lie in a TIFF, not what they show; the profile is kept by itself.
_LAYOUT = {254, 255, 256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 280, 281, 282, 283, 284, 292, 293, 296, 297, 301,
           317, 318, 319, 320, 322, 323, 324, 325, 330, 332, 338, 339, 340, 341, 347, 512, 513, 514, 519, 520, 521, 529, 530,
           531, 532, 700, 33723, 34377, 34675}


def _information(image: Any, start: bytes = b"") -> dict[str, Any]:
    """What is kept beside the pixels, in Pillow's words."""
    kept = {key: image.info[key] for key in ("icc_profile", "dpi", "comment", "xmp", "transparency", "duration", "loop",
                                             "gamma", "srgb", "background") if key in image.info}
    if image.format != "GIF":
        kept.pop("background", None)
    exif, source = need("PIL.Image").Exif(), image.getexif()
    for tag, value in source.items():
        shape = str(value).startswith('{"shape":')  # tifffile's note of how the samples lay
        if tag not in _LAYOUT and tag not in (0x8769, 0x8825) and not shape:
            exif[tag] = value
    for part in (0x8769, 0x8825):  # the camera's settings and its place
        if inner := source.get_ifd(part):
            exif.get_ifd(part).update(inner)
    if len(exif) or 0x8769 in source or 0x8825 in source:
        kept["exif"] = exif
    text = getattr(image, "text", None) if image.format == "PNG" else None
    if text:
        kept["text"] = dict(text)
    if image.format == "TIFF":
        kept["compression"] = image.info.get("compression", "raw")
    if image.format in ("JPEG", "MPO", "AVIF") or image.format == "WEBP" and b"VP8L" not in start:
        kept["lossy"] = True
    return kept


def _read_tiff(path: str, frame: int | None, cost: Cost | None) -> tuple[list[Picture], int]:
    """By Pillow where that hands out the samples as they are, by tifffile otherwise."""
    tifffile = need("tifffile")
    logging.getLogger("tifffile").addHandler(logging.NullHandler())  # what is wrong is said once, in one line
    try:
        with tifffile.TiffFile(path) as file:
            count = len(file.pages)
            if count == 0:
                raise Problem(f"{path} can't be read: it has no page")
            pictures = []
            for index in _wanted(path, frame, count):
                page = file.pages[index]
                _check_size(path, page.imagewidth, page.imagelength)
                alpha = tuple(map(int, page.extrasamples)) in ((1,), (2,))
                channels = 3 if page.photometric == 3 else page.samplesperpixel - alpha
                _check_memory(path, page.imagewidth * page.imagelength, cost, channels, max(page.bitspersample // 8, 1),
                              alpha, count if frame is None else 1)
                pictures.append(_tiff_page(path, page, index))
            return pictures, count
    except tifffile.TiffFileError as error:
        raise Problem(f"{path} can't be read: {error}") from None


def _tiff_page(path: str, page: Any, index: int) -> Picture:
    image_module = need("PIL.Image")
    image = None
    try:
        if page.samplesperpixel <= 4:  # Pillow says more than an exception of others
            with _without_bombs():
                image = image_module.open(path)
                image.seek(index)
        unnamed = page.photometric in (0, 1, 2) and 0 in page.extrasamples  # Pillow drops such a channel
        if image is not None and page.bitspersample <= 8 and (page.sampleformat or 1) == 1 and not unnamed:
            return _from_pillow(path, image, "TIFF")
        information = _tiff_information(page) if image is None else _information(image)
    except (image_module.UnidentifiedImageError, SyntaxError, EOFError):
        information = _tiff_information(page)
    finally:
        if image is not None:
            image.close()
    try:
        values = page.asarray()
    except (ValueError, KeyError) as error:
        return _compressed_page(path, index, page, error)
    if page.axes not in ("YX", "YXS", "SYX"):
        raise Problem(f"{path} has a page of axes {page.axes}, expected rows and columns of pixels")
    if page.axes == "SYX":
        values = numpy.moveaxis(values, 0, -1)
    values = upright(values, int(page.tags.valueof(274, 1)))
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    return _from_samples(path, values if values.ndim == 3 else values[..., None], page, information)


def _from_samples(path: str, values: Array, page: Any, information: dict[str, Any]) -> Picture:
    if values.dtype.kind not in "fiu" or (values.dtype.kind in "iu" and values.itemsize > 4):
        raise Problem(f"{path} holds {values.dtype}, expected integers of at most 32 bits or real numbers")
    if page.photometric == 0:
        if values.dtype.kind != "u":
            raise Problem(f"{path} has white at zero in {values.dtype}, expected it in unsigned integers only")
        values = numpy.iinfo(values.dtype).max - values
    if page.photometric in (6, 8, 9, 10):
        raise Problem(f"{path} is in {page.photometric.name} of {values.dtype}, expected 8 bits a channel there")
    spaces = {0: ("L", 1), 1: ("L", 1), 2: ("RGB", 3), 5: ("CMYK", 4)}
    space, channels = spaces.get(int(page.photometric), ("bands", 0))
    extra = tuple(int(kind) for kind in page.extrasamples)
    if space == "bands" and values.shape[2] == 1:
        raise Problem(f"{path} has TIFF's photometric interpretation {page.photometric.name}, expected grey or colours")
    if 1 in extra:
        raise Problem(f"{path} has colours multiplied by their alpha in {values.dtype}, expected unassociated alpha")
    alpha = None
    if extra == (2,):
        values, alpha = values[..., :-1], values[..., -1]
    if values.shape[2] != channels:
        information["photometric"] = "rgb" if space == "RGB" else "minisblack"
        space = "bands"
    return Picture(values, space, alpha, format="TIFF", information=information)


def _compressed_page(path: str, index: int, page: Any, error: Exception) -> Picture:
    """What tifffile has no codec for, Pillow may have, as long as it keeps the samples as they are."""
    image_module = need("PIL.Image")
    exact = {"uint16": ("I;16", "I;16B", "I;16L", "I;16N", "RGB", "RGBA"), "int32": ("I",), "float32": ("F",)}
    try:
        with _without_bombs(), image_module.open(path) as image:
            if index == 0 and count_frames(image) == 1 or image.mode not in ("RGB", "RGBA"):
                image.seek(index)
                if image.mode in exact.get(str(page.dtype), ()):
                    return _from_pillow(path, image, "TIFF")
    except image_module.UnidentifiedImageError:
        pass
    raise Problem(f"{path} can't be read: {error}; python -m pip install imagecodecs") from None


def _tiff_information(page: Any) -> dict[str, Any]:
    """For files that Pillow can't open at all."""
    kept: dict[str, Any] = {"compression": "raw" if page.compression == 1 else "tiff_adobe_deflate"}
    if page.iccprofile:
        kept["icc_profile"] = bytes(page.iccprofile)
    resolution = page.get_resolution(unit="inch") if 282 in page.tags else None
    if resolution and page.tags.valueof(296, 2) != 1:
        kept["dpi"] = resolution
    exif = need("PIL.Image").Exif()
    for tag in (270, 271, 272, 305, 306, 315, 33432):
        if (value := page.tags.valueof(tag)) and not str(value).startswith('{"shape":'):
            exif[tag] = value
    if len(exif):
        kept["exif"] = exif
    return kept


def upright(values: Array, orientation: int) -> Array:
    """Rows and columns turned as EXIF's and TIFF's tag 274 says."""
    if orientation in (5, 6, 7, 8):
        values = values.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    return numpy.ascontiguousarray(values)


def shrink(image: Tensor, longest: int) -> Tensor:
    """The picture with its longer side at most `longest` pixels."""
    height, width = image.shape[2:]
    if max(height, width) <= longest:
        return image
    scale = longest / max(height, width)
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    return torch.nn.functional.interpolate(image, size, mode="bilinear", antialias=True, align_corners=False)


@contextlib.contextmanager
def whole_file(path: str) -> Iterator[Path]:
    """A file beside `path` to write to, which takes its place once it is whole: whoever stops the writing leaves what was
    there."""
    target = Path(path).resolve()  # a link stays one
    replaced = target.is_file() or not target.exists()  # a device or a pipe can't be
    place = target.with_name(f".{os.getpid()}-{target.name}") if replaced else target
    try:
        yield place
        if replaced:
            os.replace(place, target)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise Problem(f"{path} can't be written: {reason}") from None
    finally:
        if replaced:
            place.unlink(missing_ok=True)


def need_drawing() -> None:
    """Has what draws loaded, so that what it takes isn't counted as the picture's."""
    for module in ("PIL.Image", "matplotlib.backends.backend_agg", "matplotlib.figure", "matplotlib.collections"):
        need(module)


def figure(width: float, height: float) -> Figure:
    """A matplotlib figure that is drawn into a file, without a window."""
    need("matplotlib.backends.backend_agg")
    drawn: Figure = need("matplotlib.figure").Figure(figsize=(width, height), layout="constrained")
    return drawn


def save_figure(drawn: Figure, path: str, dpi: int) -> None:
    with whole_file(path) as place:
        drawn.savefig(place, dpi=dpi)


def positive(text: str) -> float:
    """A number above 0, for argparse."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise ValueError
    return value


positive.__name__ = "number above 0"


def nearest(picture: Picture, colours: Array) -> Picture:
    """A palette's picture with other colours, each replaced by the palette's nearest of the same alpha."""
    assert picture.palette is not None
    before = picture.indices
    indices = numpy.zeros(picture.colours.shape[:2], "uint8")
    alpha = numpy.full(indices.shape, 255, "uint8") if picture.alpha is None else picture.alpha
    for opacity in numpy.unique(alpha):
        entries = numpy.flatnonzero(picture.palette[:, 3] == opacity)
        if not len(entries):  # of a frame with more colours than a palette holds
            entries = numpy.flatnonzero(picture.palette[:, 3] > 0)
        inside = alpha == opacity
        wanted, which = numpy.unique(colours[inside], axis=0, return_inverse=True)
        found = numpy.empty(len(wanted), "uint8")
        table = torch.from_numpy(picture.palette[entries, :3]).double()
        for start in range(0, len(wanted), 65536):
            part = torch.from_numpy(wanted[start:start + 65536]).double()
            found[start:start + 65536] = entries[torch.cdist(part, table).argmin(1).numpy()]
        indices[inside] = found[which.reshape(-1)]
    if before is not None:  # two entries may have one colour
        kept = (colours == picture.colours).all(-1)
        indices[kept] = before[kept]
    return replace(picture, indices=indices, colours=picture.palette[indices][..., :3])


def edge_factors(picture: Picture, valid: Array | None, parent: Tensor, sigma: float) -> Tensor:
    """exp(-|difference of colours|² / sigma²) on the edge between each pixel and its parent: (1, 1, H, W)."""
    above = parent[0].clamp(min=0)  # -1 for a pixel in no tree
    total = None
    for index in range(picture.colours.shape[2]):
        plane = picture.channel(index, valid).flatten()
        squared = plane.sub_(plane[above]).square_()
        total = squared if total is None else total.add_(squared)
    assert total is not None
    return total.mul_(-1 / sigma**2).exp_().reshape(1, 1, *picture.colours.shape[:2])


def add_picture(command: argparse.ArgumentParser) -> None:
    command.add_argument("picture", help="a picture: any format that Pillow reads, and TIFF of any depth")
    command.add_argument("--frame", type=whole, default=0, metavar="N",
                         help="which page or frame of a file that has several, from 0 (default %(default)s)")
    add_verbose(command)


def add_verbose(command: argparse.ArgumentParser) -> None:
    command.add_argument("--verbose", action="store_true", help="print the seconds of every stage and the peak memory")


def say_frame(path: str, frame: int, count: int) -> None:
    if count > 1:
        print(f"{path}: frame {frame} of {count}, counted from 0; --frame takes another")


def whole(text: str) -> int:
    """A number from 0, for argparse."""
    value = int(text)
    if value < 0:
        raise ValueError
    return value


whole.__name__ = "whole number from 0"


def add_output(command: argparse.ArgumentParser) -> None:
    command.add_argument("-o", "--output", required=True, help="the file to write; its ending says the format")


def add_sigma(command: argparse.ArgumentParser, default: float) -> None:
    command.add_argument("--sigma", type=positive, default=default,
                         help="the difference of colours at which an edge counts 1/e: of integers as a share of their whole "
                              "range, of real numbers in their own unit (default %(default)s)")
