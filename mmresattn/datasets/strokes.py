"""What a person paints, as an attention map with its opacity."""

import base64
import binascii
from collections.abc import Mapping, Sequence

import cv2
import numpy as np

RASTER = 256  # pixels on the longer side of the raster that strokes are drawn on
STROKES, POINTS, COPIED = 500, 20_000, 40_000  # limits of one edit: strokes, points in all, characters of a copied map
TOOLS = ('brush', 'eraser', 'polygon', 'map')


def raster_shape(shape: Sequence[int]) -> tuple[int, int]:
    """Height and width of the raster of an image of this height and width."""
    return tuple(max(1, round(RASTER * side / max(shape[:2]))) for side in shape[:2])


def paint(strokes: Sequence[Mapping], shape: Sequence[int]) -> np.ndarray:
    """Draw strokes, one over the other.

    Every stroke has a ``tool``, ``'brush'`` by default, and a ``strength`` from 0 to 1. Places are pairs (x, y) as
    shares of the width and height of the image, sizes are shares of its longer side.

    - ``'brush'``: a line through ``points``, of diameter ``size`` (above 0, to 2), that paints the attention ``value``
      (0 to 1). ``softness`` (0 to 1, default 0) blurs its edge. A third number of a point is the pressure of a pen
      (0 to 1), which scales the diameter there.
    - ``'eraser'``: such a line that removes paint.
    - ``'polygon'``: the area within ``points``, at least three, filled with ``value``.
    - ``'map'``: a whole map, copied from another image: ``png``, a grey PNG of 8 or 16 bits in base64.

    Args:
        strokes (Sequence[Mapping]): The strokes, at most 500 with 20,000 points in all.
        shape (Sequence[int]): Height and width of the image.

    Returns:
        np.ndarray: What :meth:`AttentionEditor.edit` takes: (H, W, 2), float32 in [0, 1], with 256 pixels on the longer
        side: the attention, and its opacity.

    Raises:
        ValueError: If a stroke is malformed, or there are too many.
    """
    if not isinstance(strokes, Sequence) or isinstance(strokes, str) or len(strokes) > STROKES:
        raise ValueError(f'An edit is a list of at most {STROKES} strokes. Undo some, and use a larger brush.')
    height, width = raster_shape(shape)
    attention, opacity = np.zeros((2, height, width), np.float32)  # attention is premultiplied
    total = 0
    for stroke in strokes:
        if not isinstance(stroke, Mapping) or stroke.get('tool', 'brush') not in TOOLS:
            raise ValueError(f'A stroke is an object whose tool is one of {", ".join(TOOLS)}.')
        tool = stroke.get('tool', 'brush')
        strength = _number(stroke, 'strength')
        if tool == 'map':
            share, value, box = strength, _copied_map(stroke, (width, height)), np.s_[:, :]
        else:
            points = _points(stroke, 3 if tool == 'polygon' else 1)
            total += len(points)
            if total > POINTS:
                raise ValueError(f'The points of all strokes are at most {POINTS}. Undo some strokes.')
            value = 0.0 if tool == 'eraser' else _number(stroke, 'value')
            mask, box = _mask(stroke, tool, points, (height, width))
            share = strength * mask
        attention[box] = (1 - share) * attention[box] + share * value
        opacity[box] = (1 - share) * opacity[box] + (0 if tool == 'eraser' else share)
    attention = np.divide(attention, opacity, where=opacity > 0, out=np.zeros_like(opacity))
    return np.stack([attention, opacity], -1).clip(0, 1)  # rounding exceeds 1


def _number(stroke: Mapping, key: str, default: float | None = None, low: float = 0, high: float = 1) -> float:
    try:
        number = float(stroke[key] if default is None else stroke.get(key, default))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f'A stroke needs the number {key}: {type(error).__name__} {error}.') from error
    if not low <= number <= high:
        raise ValueError(f'The {key} of a stroke is from {low:g} to {high:g}, not {number}.')
    return number


def _points(stroke: Mapping, at_least: int) -> np.ndarray:
    """Points (N, 3) of x, y and pressure."""
    try:
        points = np.asarray(stroke['points'], np.float64)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f'A stroke needs points [[x, y], ...]: {type(error).__name__} {error}.') from error
    if points.ndim != 2 or points.shape[1] not in (2, 3) or not at_least <= len(points) <= POINTS:
        raise ValueError(f'The points of a stroke are at least {at_least} pairs (x, y); got {points.shape}.')
    points = np.column_stack([points, np.ones(len(points))])[:, :3]
    if not (np.abs(points[:, :2]) <= 2).all() or not ((points[:, 2] >= 0) & (points[:, 2] <= 1)).all():
        raise ValueError('Points are shares of the width and height, from -2 to 2, with a pressure from 0 to 1.')
    return points


def _mask(stroke: Mapping, tool: str, points: np.ndarray, shape: tuple[int, int]) -> tuple[np.ndarray, tuple]:
    """Where a stroke paints, from 0 to 1, and the box of the raster that this is about."""
    side = max(shape)
    size = 0.0 if tool == 'polygon' else side * _number(stroke, 'size', low=1e-6, high=2)
    blur = _number(stroke, 'softness', 0) * (size or side / 8) / 6  # standard deviation of the soft edge
    places = points[:, :2] * shape[::-1] - 0.5
    margin = size / 2 + 3 * blur + 2
    low = np.clip(np.floor(places.min(0) - margin), 0, shape[::-1]).astype(int)
    high = np.clip(np.ceil(places.max(0) + margin) + 1, low, shape[::-1]).astype(int)
    box = np.s_[low[1] : high[1], low[0] : high[0]]
    mask = np.zeros(high[::-1] - low[::-1], np.uint8)
    if not mask.size:
        return mask.astype(np.float32), box
    fixed = np.rint(16 * (places - low)).astype(np.int32)  # 4 bits after the point
    if tool == 'polygon':
        cv2.fillPoly(mask, [fixed], 255, cv2.LINE_AA, shift=4)
    else:
        diameters = np.maximum(1, size * points[:, 2])
        core = np.maximum(1, diameters - 2 * blur)  # half of the blurred edge is within the diameter
        if np.ptp(core) == 0:
            cv2.polylines(mask, [fixed], False, 255, round(core[0]), cv2.LINE_AA, shift=4)
        else:
            for start, end, width in zip(fixed, fixed[1:], (core[1:] + core[:-1]) / 2):
                cv2.line(mask, start.tolist(), end.tolist(), 255, max(1, round(width)), cv2.LINE_AA, shift=4)
        for i in (0, -1):  # a click is a line without length
            cv2.circle(mask, fixed[i].tolist(), round(8 * core[i]), 255, -1, cv2.LINE_AA, shift=4)
    mask = mask / np.float32(255)
    return (cv2.GaussianBlur(mask, (0, 0), blur, borderType=cv2.BORDER_CONSTANT) if blur > 0.3 else mask), box


def _copied_map(stroke: Mapping, size: tuple[int, int]) -> np.ndarray:
    """A copied map at the size (width, height) of the raster."""
    png = stroke.get('png')
    try:
        content = base64.b64decode(png, validate=True) if isinstance(png, str) and len(png) <= COPIED else b''
    except binascii.Error:
        content = b''
    # The header of a PNG says its size before anything is decoded.
    sides = np.frombuffer(content[16:24], '>u4') if content.startswith(b'\x89PNG\r\n') and len(content) > 24 else [0]
    if not (1 <= min(sides) and max(sides) <= RASTER):
        raise ValueError(f'A copied map is a PNG of at most {RASTER} x {RASTER} pixels in base64.')
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None or image.ndim != 2:
        raise ValueError('A copied map is a grey PNG of 8 or 16 bits.')
    return cv2.resize(np.float32(image / np.iinfo(image.dtype).max), size)
