"""Pictures out: written as what they were, or refused."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy

from .picture import Array, Picture, as_pillow, whole_file
from .problem import Problem, need

# What a format holds, by Picture's space, bits of a channel and "A" for alpha; others hold 8 bits of grey or RGB.
_HOLDS = {
    "PNG": "1 P PA L8 L8A L16 L16A RGB8 RGB8A RGB16 RGB16A",
    "JPEG": "L8 RGB8 CMYK8 YCbCr8",
    "WEBP": "RGB8 RGB8A",
    "AVIF": "L8 RGB8 RGB8A",
    "GIF": "1 L8 P PA",
    "BMP": "1 L8 P RGB8",
    "DIB": "1 L8 P RGB8",
    "PPM": "1 L8 L16 RGB8 Lf32",
    "TGA": "1 L8 L8A P RGB8 RGB8A",
    "JPEG2000": "L8 L8A L16 RGB8 RGB8A CMYK8",
    "PCX": "1 L8 P RGB8",
    "SGI": "L8 RGB8 RGB8A",
}
_PILLOW_TIFF = "1 P L8 L8A L16 RGB8 RGB8A CMYK8 YCbCr8 LAB8 Lf32 Li32".split()
_ENDINGS = {"PNG": "png", "TIFF": "tiff", "JPEG": "jpg", "WEBP": "webp", "AVIF": "avif", "GIF": "gif", "BMP": "bmp",
            "JPEG2000": "jp2"}
_SEVERAL = ("GIF", "PNG", "TIFF", "WEBP", "AVIF")


def kind(picture: Picture) -> str:
    alpha = "A" if picture.stored_alpha is not None else ""
    if picture.space in ("1", "P"):
        return picture.space + alpha
    dtype = picture.colours.dtype
    return f"{picture.space}{'' if dtype.kind == 'u' else dtype.kind}{8 * dtype.itemsize}{alpha}"


def _holds(format: str, wanted: str) -> bool:
    if format == "TIFF":
        return not wanted.startswith("P") and not wanted.startswith("1") or wanted in _PILLOW_TIFF
    return wanted in _HOLDS.get(format, "L8 RGB8").split()


def check_output(path: str, several: bool = False) -> str:
    """Pillow's name of the format that the file's ending says."""
    image_module = need("PIL.Image")
    ending = Path(path).suffix.lower()
    format = image_module.registered_extensions().get(ending)
    if format is None or format not in image_module.SAVE:
        raise Problem(f"{path} can't be written: unknown file extension: {ending}")
    if several and format not in _SEVERAL:
        raise Problem(f"{path} can't be written: {ending[1:]} holds one picture; gif, png, tiff, webp and avif hold several")
    return str(format)


def write(pictures: list[Picture], path: str) -> None:
    """Writes a picture, or the frames of one; the file's ending says the format, which has to hold what they are."""
    format = check_output(path, len(pictures) > 1)
    if format != pictures[0].format:  # a colour that stands for transparency is PNG's way
        pictures = [_without_colour_key(picture) for picture in pictures]
    for picture in pictures:
        _check(picture, path, format)
    with whole_file(path) as place:
        if format == "TIFF" and any(kind(picture) not in _PILLOW_TIFF for picture in pictures):
            _write_tiff(pictures, place)
        elif format == "PNG" and kind(pictures[0]) in ("L16A", "RGB16", "RGB16A"):
            place.write_bytes(_deep_png(pictures[0], _options(pictures[0], format)))
        else:
            _save(pictures, place, format)


def _without_colour_key(picture: Picture) -> Picture:
    picture.information.pop("transparency", None)
    return picture


def _check(picture: Picture, path: str, format: str) -> None:
    wanted = kind(picture)
    if not _holds(format, wanted):
        able = [ending for name, ending in _ENDINGS.items() if _holds(name, wanted)]
        deep = "; --depth 8 writes 8 bits" if picture.colours.itemsize > 1 and _holds(format, kind_of_eight(picture)) else ""
        raise Problem(f"{path} can't be written: {Path(path).suffix[1:].lower()} doesn't hold {picture.name}, "
                      f"{_listed(able)}{deep}")
    if format == "GIF" and picture.alpha is not None and not numpy.isin(picture.alpha, (0, 255)).all():
        raise Problem(f"{path} can't be written: gif doesn't hold pixels that are partly transparent, png does")


def _listed(endings: list[str]) -> str:
    if len(endings) < 2:
        return f"{endings[0]} does" if endings else "nor does another format"
    return f"{', '.join(endings[:-1])} and {endings[-1]} do"


def kind_of_eight(picture: Picture) -> str:
    return f"{picture.space}8{'A' if picture.alpha is not None else ''}"


def _options(picture: Picture, format: str) -> dict[str, Any]:
    """What Pillow's writer of the format takes of what is kept."""
    kept = picture.information
    names = {"PNG": ("icc_profile", "dpi", "exif"), "TIFF": ("icc_profile", "dpi", "exif"),
             "JPEG": ("icc_profile", "dpi", "exif", "comment", "xmp"), "WEBP": ("icc_profile", "exif", "xmp"),
             "AVIF": ("icc_profile", "exif", "xmp"), "GIF": ("comment",), "BMP": ("dpi",)}
    options = {name: kept[name] for name in names.get(format, ()) if name in kept}
    if format == "PNG":
        options["pnginfo"] = _png_chunks(kept)
        if "transparency" in kept:
            options["transparency"] = kept["transparency"]
    if "exif" in options:
        options["exif"] = options["exif"].tobytes()
    if format == "WEBP":
        options.update(exact=True, lossless="lossy" not in kept)
    if format == "TIFF" and kept.get("compression") in ("tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "packbits"):
        options["compression"] = kept["compression"]
    if picture.space == "P" and picture.palette is not None and (picture.palette[:, 3] < 255).any():
        opacity = picture.palette[:, 3]
        options["transparency"] = int(opacity.argmin()) if format == "GIF" else opacity.tobytes()
    return options


def _png_chunks(kept: dict[str, Any]) -> Any:
    plugin = need("PIL.PngImagePlugin")
    chunks = plugin.PngInfo()
    for key, value in kept.get("text", {}).items():
        chunks.add_itxt(key, value, getattr(value, "lang", "") or "", getattr(value, "tkey", "") or "") \
            if isinstance(value, plugin.iTXt) else chunks.add_text(key, value)
    if "text" not in kept and isinstance(kept.get("comment"), (str, bytes)):
        comment = kept["comment"]
        chunks.add_text("Comment", comment if isinstance(comment, str) else comment.decode("utf-8", "replace"))
    if "srgb" in kept and "icc_profile" not in kept:
        chunks.add(b"sRGB", bytes([kept["srgb"]]))
    if "gamma" in kept:
        chunks.add(b"gAMA", struct.pack(">I", round(kept["gamma"] * 100000)))
    return chunks


def _save(pictures: list[Picture], place: Path, format: str) -> None:
    images = [as_pillow(picture) for picture in pictures]
    options = _options(pictures[0], format)
    if len(images) > 1:
        durations = [picture.information["duration"] for picture in pictures if "duration" in picture.information]
        options.update(save_all=True, append_images=images[1:])
        if len(durations) == len(images) and format != "TIFF":
            options["duration"] = [round(duration) for duration in durations] if format != "PNG" else durations
        if "loop" in pictures[0].information:
            options["loop"] = pictures[0].information["loop"]
        if format == "GIF" and any(picture.alpha is not None for picture in pictures):
            options["disposal"] = 2  # a frame's transparent pixels don't show the frame before
    images[0].save(place, format, **options)


def _deep_png(picture: Picture, options: dict[str, Any]) -> bytes:
    """A PNG of 16 bits a channel, which Pillow has no mode for: Pillow's file of one pixel, with other pixels in it."""
    colours = picture.colours
    if picture.stored_alpha is not None:
        colours = numpy.concatenate([colours, picture.stored_alpha[..., None]], 2)
    height, width, channels = colours.shape
    type_, mode = {2: (4, "LA"), 3: (2, "RGB"), 4: (6, "RGBA")}[channels]
    shell = io.BytesIO()
    need("PIL.Image").new(mode, (1, 1)).save(shell, "PNG", **options)
    out, position = [shell.getvalue()[:8]], 8
    while position < len(shell.getvalue()):
        length, name = struct.unpack(">I4s", shell.getvalue()[position:position + 8])
        content = shell.getvalue()[position + 8:position + 8 + length]
        position += 12 + length
        if name == b"IHDR":
            content = struct.pack(">IIBBBBB", width, height, 16, type_, 0, 0, 0)
        elif name == b"IDAT":
            content = zlib.compress(_filtered_rows(colours), 6)
        out.append(struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content)))
    return b"".join(out)


def _filtered_rows(colours: Array) -> bytes:
    """PNG's filter 2: every byte less the one above it."""
    rows = colours.astype(">u2").view("uint8").reshape(len(colours), -1)
    filtered = numpy.empty((len(rows), rows.shape[1] + 1), "uint8")
    filtered[:, 0] = 2
    filtered[0, 1:] = rows[0]
    numpy.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    return filtered.tobytes()


def _write_tiff(pictures: list[Picture], place: Path) -> None:
    """By tifffile, which takes every type of sample."""
    with need("tifffile").TiffWriter(place) as file:
        for picture in pictures:
            kept, colours = picture.information, picture.colours
            named = {"rgb": 3, "minisblack": 1}.get(kept.get("photometric", ""), colours.shape[2])
            extra = ["unspecified"] * (colours.shape[2] - named)
            if picture.alpha is not None:
                colours = numpy.concatenate([colours, picture.alpha[..., None]], 2)
                extra.append("unassalpha")
            photometric = {"L": "minisblack", "RGB": "rgb", "CMYK": "separated", "YCbCr": "ycbcr", "LAB": "cielab"}
            options: dict[str, Any] = {}
            if "dpi" in kept:
                options.update(resolution=tuple(map(float, kept["dpi"])), resolutionunit="INCH")
            texts = {tag: value for tag, value in kept.get("exif", {}).items()
                     if isinstance(value, str) and tag in (269, 270, 271, 272, 285, 305, 306, 315, 316, 33432)}
            if 270 in texts:
                options["description"] = texts.pop(270)
            if 305 in texts:
                options["software"] = texts.pop(305)
            if 306 in texts:
                options["datetime"] = texts.pop(306)
            options["extratags"] = [(tag, "s", 0, value, True) for tag, value in texts.items()]
            file.write(colours[..., 0] if colours.shape[2] == 1 else colours, metadata=None,
                       photometric=photometric.get(picture.space, kept.get("photometric", "minisblack")),
                       planarconfig="contig" if colours.shape[2] > 1 else None, extrasamples=extra or None,
                       compression=None if kept.get("compression", "raw") == "raw" else "zlib",
                       iccprofile=kept.get("icc_profile"), **{"software": False, **options})
