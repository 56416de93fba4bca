"""Tell what is on photographs, and draw for each word where the network looks.

python tools/visualization/vis_caption.py CONFIG CHECKPOINT photo.jpg --out-dir work_dirs/captions
"""

from pathlib import Path

from mmresattn.apis import AttentionInferencer
from mmresattn.apis.command_line import ArgumentParser, run_tool
from mmresattn.models.captioners import ShowAttendTell
from mmresattn.visualization import ImageSources, caption_figure, maps_in_view, save_figure, show_image


def main(argv=None):
    parser = ArgumentParser(description='Tell what is on photographs, and draw where the network looks.')
    parser.add_argument('config', help='config file of a captioner')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('images', nargs='+', help='photographs, or folders of them')
    parser.add_argument('--out-dir', type=Path, default=Path('work_dirs/captions'), help='folder for the figures')
    parser.add_argument('--suffix', choices=('.png', '.svg', '.pdf'), default='.png', help='format of the figures')
    args = parser.parse_args(argv)

    inferencer = AttentionInferencer(args.config, args.checkpoint)
    if not isinstance(inferencer.model, ShowAttendTell):
        raise ValueError(f'{args.config} is of a {type(inferencer.model).__name__}; expected a ShowAttendTell.')
    sources = ImageSources(args.images)
    for sample in inferencer.predict(inferencer.read(sources, follow=True)):
        prediction = sample.prediction
        maps = maps_in_view(prediction.pred_attention.float().cpu(), sample.view, sample.input_shape)
        figure = caption_figure(show_image(sample.image), prediction.pred_words, maps, prediction.pred_gate)
        save_figure(figure, args.out_dir / f'{sample.name}{args.suffix}')
        print(f'{sample.name}: {prediction.pred_caption}')
    sources.report()


if __name__ == '__main__':
    run_tool(main)
