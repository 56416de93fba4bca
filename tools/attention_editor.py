"""Web page for correcting a classifier's attention maps by hand; see docs/tutorial.md.

    python tools/attention_editor.py --config CONFIG --checkpoint CHECKPOINT --images FOLDER

It needs the extra `editor`: pip install 'mmresattn[editor]'. The page loads nothing from other hosts.
"""

import getpass
import os
import secrets
from pathlib import Path

from mmengine.config import DictAction

from mmresattn.apis.command_line import ArgumentParser, run_tool
from mmresattn.apis.launch import read_config

PASSWORD = 'MMRESATTN_EDITOR_PASSWORD'
DESCRIPTION = """\
Web page for correcting a classifier's attention maps by hand.

By default only this machine reaches the page. On another address (--host) the page asks for a password; without
--password a random one is in the printed link. Traffic is not encrypted: put a proxy with TLS in front of it, and name
it by --allow-host."""


def parse_args(argv=None):
    parser = ArgumentParser(description=DESCRIPTION)
    parser.add_argument('--config', required=True)
    parser.add_argument('--checkpoint', required=True)
    parser.add_argument('--images', required=True, help='folder of images, best with one folder per class')
    parser.add_argument('--out', help='folder for maps and manifest; default: work_dirs/attention_editor/<images>')
    parser.add_argument('--annotator', default=getpass.getuser(), help='your name, noted beside what you save')
    parser.add_argument('--host', default='127.0.0.1', help='address to listen on; the default is this machine alone')
    parser.add_argument('--port', type=int, default=7860)
    parser.add_argument('--allow-host', nargs='*', default=[], help='further names under which browsers reach the page')
    parser.add_argument(
        '--password', action='store_true', help=f'ask for a password now, or take that of the variable {PASSWORD}'
    )
    parser.add_argument('--device', help='default: the accelerator if there is one')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, help='change settings of the config: data_root=FOLDER'
    )
    return parser.parse_args(argv)


def main(argv=None) -> None:
    args = parse_args(argv)
    try:
        from mmresattn.editor import AttentionEditor
        from mmresattn.editor.security import is_loopback
        from mmresattn.editor.server import serve
    except ModuleNotFoundError as error:
        raise ImportError(f"The page needs {error.name}: pip install 'mmresattn[editor]'") from error
    password = os.environ.get(PASSWORD)
    if args.password and not password:
        password = getpass.getpass('Password of the page: ')
    link = f'http://{args.host}:{args.port}/'
    if not password and not is_loopback(args.host):
        password = secrets.token_urlsafe(16)
        link += f'?token={password}'
    out = Path(args.out or Path('work_dirs/attention_editor', Path(args.images).resolve().name))
    if args.cfg_options:  # a training from the page reads the config again
        config = read_config(args.config, args.cfg_options)
        args.config = out / Path(args.config).name
        out.mkdir(parents=True, exist_ok=True)
        config.dump(args.config)
    editor = AttentionEditor(args.config, args.checkpoint, args.images, out, args.device, args.annotator)
    print(f'{len(editor.names)} images, {len(editor.log.saved)} saved maps in {editor.out}.', flush=True)
    for note in editor.notes():
        print(f'Note: {note}')
    print(f'Open {link}', flush=True)
    serve(editor, args.host, args.port, args.allow_host, password)


if __name__ == '__main__':
    run_tool(main)
