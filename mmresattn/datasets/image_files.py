"""Which files are decoded as images: regular files, of listed formats, whole, and not too large."""

import io
import os
import stat
from pathlib import Path
from typing import BinaryIO

from PIL import Image, TiffImagePlugin, UnidentifiedImageError

SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.gif', '.tif', '.tiff', '.webp', '.ppm', '.pgm')
# The first bytes of the formats, and what Pillow calls them. Pillow would also start Ghostscript on PostScript.
FORMATS = {
    b'\xff\xd8\xff': 'JPEG',
    b'\x89PNG\r\n': 'PNG',
    b'BM': 'BMP',
    b'GIF8': 'GIF',
    b'II*\0': 'TIFF',
    b'MM\0*': 'TIFF',
    b'II+\0': 'TIFF',  # of more than 4 GiB
    b'MM\0+': 'TIFF',
    b'RIFF': 'WEBP',
    **{b'P%d' % number: 'PPM' for number in range(1, 7)},
}
ENDS = (b'\xff\xd9', b'IEND\xaeB`\x82')  # of whole JPEG and PNG files
MAX_PIXELS = 100_000_000


class BrokenImage(ValueError):
    """A file that cannot be decoded as an image."""


def find_image_files(folder: str | Path) -> list[Path]:
    """Everything in a folder and its subfolders that is named like an image, sorted; hidden files and folders are not.

    :func:`check_image` tells whether each is one.
    """
    folder = Path(folder)
    found = (path for path in folder.rglob('*') if path.suffix.lower() in SUFFIXES)
    return sorted(path for path in found if not any(part[0] == '.' for part in path.relative_to(folder).parts))


def check_regular_file(path: str | Path) -> None:
    """Make sure that reading a file ends: folders, pipes, devices and loops of links are refused.

    Raises:
        BrokenImage: If it is none.
        FileNotFoundError: If it is missing.
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        raise
    except OSError as error:  # such as a loop of links
        raise BrokenImage(error.strerror) from error
    if not stat.S_ISREG(mode):
        raise BrokenImage('it is a folder' if stat.S_ISDIR(mode) else 'it is not a regular file')


def check_image(content: bytes) -> None:
    """Make sure that the content of a file is a whole image that is safe to decode.

    The header is read without decoding. The end of a JPEG or PNG file shows that it is whole; other files, and those
    with something after their end, are decoded once by Pillow, which is strict.

    Args:
        content (bytes): The file.

    Raises:
        BrokenImage: If it is empty, of another format than ``FORMATS``, incomplete or corrupt, or has more pixels than
            ``MAX_PIXELS`` or the environment variable ``MMRESATTN_MAX_PIXELS`` allow.
    """
    if not content:
        raise BrokenImage('it is empty')
    kind = next((kind for start, kind in FORMATS.items() if content.startswith(start)), None)
    if kind is None or kind == 'WEBP' and content[8:12] != b'WEBP':
        raise BrokenImage(f'it has none of the formats {", ".join(dict.fromkeys(FORMATS.values()))}')
    try:
        width, height = _size(io.BytesIO(content), kind)
    except Exception as error:  # each decoder has its own
        raise BrokenImage(f'its {kind} header is corrupt ({error or type(error).__name__})') from error
    limit = int(os.environ.get('MMRESATTN_MAX_PIXELS', MAX_PIXELS))
    if width * height > limit:
        raise BrokenImage(
            f'its {width} x {height} pixels exceed the limit of {limit:,}; the environment variable '
            'MMRESATTN_MAX_PIXELS raises it'
        )
    if not content.endswith(ENDS):
        try:
            Image.open(io.BytesIO(content), formats=[kind]).load()
        except (UnidentifiedImageError, Image.DecompressionBombError):
            pass  # some TIFF files, and very large images, are for other decoders alone
        except Exception as error:
            raise BrokenImage(f'it is incomplete or corrupt ({error or type(error).__name__})') from error


def _size(file: BinaryIO, kind: str) -> tuple[int, int]:
    """Width and height in pixels, by the header."""
    if kind == 'TIFF':  # by its tags, as Pillow does not know every combination of channels and bits
        header = file.read(8)
        tags = TiffImagePlugin.ImageFileDirectory_v2(header + (file.read(8) if b'+' in header[:4] else b''))
        file.seek(tags.next)
        tags.load(file)
        return tags[TiffImagePlugin.IMAGEWIDTH], tags[TiffImagePlugin.IMAGELENGTH]
    Image.init()
    return Image.OPEN[kind][0](file, '').size  # Image.open would refuse large images before it says their size
