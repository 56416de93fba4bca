"""Silhouettes of the garments in clothing-dataset-small, for tools/analysis_tools/faithfulness.py --masks.

python .dev_scripts/clothing_silhouettes.py data/clothing work_dirs/silhouettes

GrabCut (Rother et al., SIGGRAPH 2004, in OpenCV) starts from a model of the colours along the edges of a photograph:
most garments lie or hang before a plain background. clothing_silhouettes_wrong.txt lists the test photographs whose
silhouette is wrong to the eye; they get none. --sheet draws all of them for such a look.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np

WRONG = Path(__file__).with_name('clothing_silhouettes_wrong.txt')
SIDE = 200  # pixels of the longer side while cutting


def silhouette(photo: np.ndarray) -> np.ndarray:
    """The garment (H, W), bool, of a photograph (H, W, 3) in BGR."""
    height, width = photo.shape[:2]
    scale = SIDE / max(height, width)
    small = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    rows, columns = small.shape[:2]
    lab = cv2.cvtColor(small, cv2.COLOR_BGR2LAB).astype(np.float32)
    edge = max(2, round(0.04 * SIDE))
    frame = np.ones((rows, columns), bool)
    frame[edge:-edge, edge:-edge] = False
    frame[-edge:, columns // 4 : -columns // 4] = False  # garments often reach the edge in the middle, below and above
    frame[:edge, columns // 4 : -columns // 4] = False
    centres = cv2.kmeans(
        lab[frame], 4, None, (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 20, 1.0), 2, cv2.KMEANS_PP_CENTERS
    )[2]
    distance = np.linalg.norm(lab[:, :, None] - centres, axis=-1).min(-1)
    distance = cv2.GaussianBlur(distance, (0, 0), 2)
    threshold, _ = cv2.threshold(distance.clip(0, 255).astype(np.uint8), 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    state = np.where(distance > threshold, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    state[frame & (distance < 0.7 * threshold)] = cv2.GC_BGD
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.setRNGSeed(0)
    cv2.grabCut(small, state, None, *models, 5, cv2.GC_INIT_WITH_MASK)
    garment = ((state == cv2.GC_FGD) | (state == cv2.GC_PR_FGD)).astype(np.uint8)
    garment = cv2.morphologyEx(garment, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    garment = cv2.morphologyEx(garment, cv2.MORPH_CLOSE, np.ones((7, 7), np.uint8))
    count, parts, stats, _ = cv2.connectedComponentsWithStats(garment)
    sizes = stats[1:, cv2.CC_STAT_AREA] if count > 1 else np.array([0])
    kept = [i + 1 for i, size in enumerate(sizes) if size >= 0.2 * sizes.max()]  # two shoes are two parts
    return cv2.resize(np.isin(parts, kept).astype(np.uint8), (width, height), interpolation=cv2.INTER_LINEAR) > 0


def sheet(pictures: list[np.ndarray], columns: int = 16, side: int = 112) -> np.ndarray:
    """Pictures in rows, each within a square."""
    tiles = []
    for picture in pictures:
        scale = side / max(picture.shape[:2])
        small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)[:side, :side]
        tile = np.full((side, side, 3), 255, np.uint8)
        tile[: small.shape[0], : small.shape[1]] = small
        tiles.append(tile)
    tiles += [np.full((side, side, 3), 255, np.uint8)] * (-len(tiles) % columns)
    return np.vstack([np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('data', type=Path, help='folder with test/<class>/*.jpg')
    parser.add_argument('out', type=Path, help='folder for the silhouettes: OUT/test/<class>/*.png')
    parser.add_argument('--split', default='test', help='default: test')
    parser.add_argument('--sheet', action='store_true', help='draw sheets with all silhouettes, too')
    args = parser.parse_args()
    wrong = {*WRONG.read_text().split()} if WRONG.exists() else set()
    drawn = []
    for file in sorted(Path(args.data, args.split).rglob('*.jpg')):
        name = file.relative_to(args.data).with_suffix('')
        photo = cv2.imread(str(file))
        garment = silhouette(photo)
        if name.as_posix() not in wrong:
            target = Path(args.out, f'{name}.png')
            target.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(target), 255 * garment.astype(np.uint8))
        if args.sheet:
            picture = np.where(garment[..., None], photo, (photo // 4 + np.array([0, 0, 120])).astype(np.uint8))
            scale = 112 / max(picture.shape[:2])
            picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            number = str(len(drawn))
            cv2.putText(picture, number, (2, 12), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 3, cv2.LINE_AA)
            cv2.putText(picture, number, (2, 12), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (255, 255, 255), 1, cv2.LINE_AA)
            drawn.append((picture, name))
    for start in range(0, len(drawn), 128):
        part = drawn[start : start + 128]
        cv2.imwrite(str(args.out / f'sheet_{start}.png'), sheet([picture for picture, _ in part]))
    if args.sheet:
        Path(args.out, 'names.txt').write_text('\n'.join(f'{i} {name}' for i, (_, name) in enumerate(drawn)) + '\n')


if __name__ == '__main__':
    main()
