"""Classify another data set by a linear model on the features of a trained network.

python tools/analysis_tools/linear_probe.py configs/pay_attention/vgg-att2-dp_cifar10.py CHECKPOINT \\
    --data other_data.py --resize 32

The network stays as it is and sees images in its own normalisation, without augmentation. This is how Learn To Pay
Attention (Jetley et al., arXiv:1804.02391) measures whether what was learnt on CIFAR serves elsewhere.
"""

import torch
import torch.nn.functional as F
from mmengine.config import DictAction
from rich.console import Console
from rich.progress import track
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from mmresattn.apis import load_classifier, read_config
from mmresattn.apis.command_line import ArgumentParser, print_table, run_tool
from mmresattn.evaluation.batches import first_images

CLASSIFIERS = {
    'logistic': lambda seed: LogisticRegression(max_iter=2000, random_state=seed),
    'svm': lambda seed: LinearSVC(random_state=seed),
}


def parse_args(argv=None):
    parser = ArgumentParser(description='Classify another data set by the features of a trained network.')
    parser.add_argument('config', help='config file of the network')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument(
        '--data', required=True, help='config file whose train_dataloader and test_dataloader are the other data set'
    )
    parser.add_argument(
        '--features',
        choices=['pre_logits', 'backbone'],
        default='pre_logits',
        help="what the network's last layer sees (default), or all outputs of its backbone, averaged over positions",
    )
    parser.add_argument('--classifier', choices=list(CLASSIFIERS), default='logistic', help='default: logistic')
    parser.add_argument(
        '--c',
        type=float,
        nargs='+',
        default=[0.001, 0.01, 0.1, 1],
        help='inverse strengths of the regularisation; the best is found by cross-validation on the training images',
    )
    parser.add_argument('--resize', type=int, help='side to which images are resized; default: as the data set is')
    parser.add_argument('--max-images', type=int, help='of each set, drawn by the seed; default: all')
    parser.add_argument('--seed', type=int, default=0, help='of the draw and of the classifier; default: 0')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help="settings of the network's config")
    parser.add_argument('--data-options', nargs='+', action=DictAction, help='settings of the config of --data')
    return parser.parse_args(argv)


def load(args, split):
    """The network, and batches of images of the other data set, all as tested there."""
    data = read_config(args.data, args.data_options)
    options = dict(args.cfg_options or {})
    for name in ('train_dataloader', 'test_dataloader'):  # in place of the network's own data
        options[name] = {**data[name], '_delete_': True}
    return load_classifier(args.config, args.checkpoint, options, args.max_images, args.seed, split)


def extract(model, loader, stage, resize, title, console):
    """Features (images, channels) and labels (images,) as arrays."""
    if stage == 'pre_logits' and not hasattr(model.head, 'pre_logits'):
        raise ValueError(f'{type(model.head).__name__} has no pre_logits; give --features backbone.')
    features, labels = [], []
    for batch in track(first_images(loader, None), title, total=len(loader), console=console):
        images = batch['inputs']
        if resize:
            images = F.interpolate(images.float(), (resize, resize), mode='bilinear', antialias=True)
        with torch.no_grad():
            inputs = model.data_preprocessor({'inputs': images}, training=False)['inputs']
            outputs = model.extract_feat(inputs, stage=stage)
        outputs = [outputs] if isinstance(outputs, torch.Tensor) else outputs
        pooled = [out.mean((2, 3)) if out.dim() == 4 else out for out in outputs]  # each N, channels
        features.append(torch.cat(pooled, 1).cpu())
        labels += [sample.gt_label.item() for sample in batch['data_samples']]
    return torch.cat(features).cpu().numpy(), labels


def main(argv=None):
    args = parse_args(argv)
    console = Console()
    (_, train), (model, test) = load(args, 'train'), load(args, 'test')
    x, y = extract(model, train, args.features, args.resize, 'training images', console)
    test_x, test_y = extract(model, test, args.features, args.resize, 'test images', console)
    linear = Pipeline([('scale', StandardScaler()), ('linear', CLASSIFIERS[args.classifier](args.seed))])
    search = GridSearchCV(linear, {'linear__C': args.c}, cv=3).fit(x, y)

    header = ('features', 'training images', 'test images', 'C', 'accuracy, training', 'accuracy, test')
    accuracies = [f'{100 * search.score(*sets):.2f} %' for sets in ((x, y), (test_x, test_y))]
    sizes = (f'{x.shape[1]:,}', f'{len(y):,}', f'{len(test_y):,}')
    row = (*sizes, f'{search.best_params_["linear__C"]:g}', *accuracies)
    print_table(f'{args.classifier} on {args.features} of {args.checkpoint}', header, [row], ())


if __name__ == '__main__':
    run_tool(main)
