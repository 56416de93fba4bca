"""Write the vocabulary of a captioner from the captions that its config trains on.

python tools/dataset_converters/caption_vocabulary.py configs/captioning/sat-soft_vgg19_flickr8k.py
"""

from mmengine.config import DictAction

from mmresattn.apis import read_config
from mmresattn.apis.command_line import ArgumentParser, run_tool
from mmresattn.datasets import KarpathyCaptions
from mmresattn.models.captioners import Vocabulary


def main(argv=None):
    parser = ArgumentParser(description='Write the vocabulary of a captioner from its training captions.')
    parser.add_argument('config', help='config file, whose model.vocabulary is the file to write')
    parser.add_argument('--min-count', type=int, default=1, help='how often a word must occur')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='settings of the config: key=value')
    args = parser.parse_args(argv)

    cfg = read_config(args.config, args.cfg_options)
    path, size = cfg.model.get('vocabulary'), cfg.model.get('num_words')
    if not isinstance(path, str):
        raise ValueError(f'model.vocabulary of {args.config} is no file but the words themselves.')
    dataset = dict(cfg.train_dataloader.dataset, pipeline=[], lazy_init=True)
    kind = dataset.pop('type')
    if kind != 'KarpathyCaptions':
        raise ValueError(f'{args.config} trains on {kind}; expected KarpathyCaptions.')
    captions = KarpathyCaptions(**dataset).captions()
    vocabulary = Vocabulary.of(captions, args.min_count, size - 2 if size else len(captions) * 100)
    vocabulary.save(path)
    print(f'{len(vocabulary) - 2} words of {len(captions)} captions written to {path}')


if __name__ == '__main__':
    run_tool(main)
