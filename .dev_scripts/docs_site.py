"""What the site of docs/ needs beside mkdocs.yml: its first page, links that leave docs/, notebooks, and docstrings.

The first page is README.md. Links are those of the repository, so that the pages can be read there as well:
``../configs/senet/README.md``. Every linked file becomes part of the site under ``source/``, and so do the files that
it links in turn. A notebook becomes a page with the outputs that are stored in it.
"""

import base64
import json
import os.path as osp
import re
import runpy
from pathlib import Path

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
# Code is passed over, in which `maps[name](x)` is no link.
LINK = re.compile(r'(?ms)^```.*?^```|`[^`\n]+`|(?<=\]\()(?!\w+:)([^)#\s]+)')
LANGUAGES = {'.py': 'python', '.yml': 'yaml', '.sh': 'bash', '.txt': 'text', '.cff': 'yaml', '': 'text'}
UNSEARCHED = '---\nsearch:\n  exclude: true\n---\n\n'


def targets(uri: str, markdown: str) -> dict[str, str]:
    """The files and folders that a page links.

    Args:
        uri (str): Place of the page on the site, from ``docs/``.
        markdown (str): Its text.

    Returns:
        Dict[str, str]: For each link, as it is written, the path in the repository.
    """
    own = {'index.md': 'README.md'}.get(
        uri, uri.removeprefix('source/') if uri.startswith('source/') else f'docs/{uri}'
    )
    links = {match[1] for match in LINK.finditer(markdown) if match[1]}
    return {link: osp.normpath(osp.join(osp.dirname(own), link)) for link in links}


def place(path: str) -> str:
    """Where something of the repository is on the site, from ``docs/``."""
    if path == 'README.md':
        return 'index.md'
    if path.startswith('docs/'):
        return re.sub(r'\.ipynb$', '.md', path.removeprefix('docs/'))
    file = ROOT / path
    if file.is_dir():
        return f'source/{path}/README.md'
    return f'source/{path}' + ('.md' if file.suffix in LANGUAGES else '')


def text(path: str) -> str:
    """The page of something that is not in ``docs/``: a page, a file of code, or what is in a folder."""
    file = ROOT / path
    if file.is_dir() and (file / 'README.md').exists():
        file /= 'README.md'
    if file.suffix == '.md':
        return UNSEARCHED + file.read_text(encoding='utf-8')
    if file.is_dir():
        inside = sorted(entry.name for entry in file.iterdir() if not entry.name.startswith(('.', '__pycache__')))
        # Links of a page are from its folder, of which this one is the list.
        return f'{UNSEARCHED}# {path}\n\n' + ''.join(f'- [{name}]({name})\n' for name in inside)
    return f'{UNSEARCHED}# {file.name}\n\n`{path}`\n\n````{LANGUAGES[file.suffix]}\n{file.read_text("utf-8")}````\n'


def notebook(file: Path) -> tuple[str, dict[str, bytes]]:
    """A notebook as Markdown, and its pictures by the name under which the Markdown shows them."""
    parts, pictures = [], {}
    for cell in json.loads(file.read_text(encoding='utf-8'))['cells']:
        source = ''.join(cell['source'])
        parts.append(source if cell['cell_type'] == 'markdown' else f'```python\n{source}\n```')
        for output in cell.get('outputs', []):
            data = output.get('data', {'text/plain': output.get('text', [])})
            if 'image/png' in data:
                name = f'{file.stem}_{len(pictures)}.png'
                pictures[name] = base64.b64decode(data['image/png'])
                parts.append(f'![Output of the code above]({name})')
            else:
                parts.append('```text\n' + ''.join(data['text/plain']).rstrip() + '\n```')
    return '\n\n'.join(parts) + '\n', pictures


def on_config(config: MkDocsConfig) -> None:
    """Name the repository and the address of the site, once .dev_scripts/release.py knows them."""
    release = runpy.run_path(str(ROOT / '.dev_scripts' / 'release.py'))
    if '/OWNER/' not in release['REPOSITORY']:
        config.repo_url, config.repo_name = release['REPOSITORY'], 'mmresattn'
        config.site_url = release['SITE']


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add to the site its first page, its notebooks, and what its pages link and what those link in turn."""
    files.append(File.generated(config, 'index.md', content=(ROOT / 'README.md').read_text(encoding='utf-8')))
    for file in sorted((ROOT / 'docs').glob('*.ipynb')):
        markdown, pictures = notebook(file)
        files.append(File.generated(config, f'{file.stem}.md', content=markdown))
        for name, content in pictures.items():
            files.append(File.generated(config, name, content=content))
    pages = [(file.src_uri, file.content_string) for file in files.documentation_pages()]
    while pages:
        uri, markdown = pages.pop()
        for path in targets(uri, markdown).values():
            goal = place(path)
            if files.get_file_from_path(goal) is not None or not (ROOT / path).exists() or path.startswith('docs/'):
                continue
            if goal.endswith('.md'):
                content = text(path)
                files.append(File.generated(config, goal, content=content))
                pages.append((goal, content))
            else:
                files.append(File.generated(config, goal, abs_src_path=str(ROOT / path)))


def on_page_markdown(markdown: str, page: Page, **kwargs) -> str:
    """Point links that leave ``docs/`` to the copies on the site."""
    uri = page.file.src_uri
    found = targets(uri, markdown)

    def moved(match: re.Match) -> str:
        path = found.get(match[1])
        if path is None or not (ROOT / path).exists():  # mkdocs tells of what is not there
            return match[0]
        return osp.relpath(place(path), osp.dirname(uri))

    return LINK.sub(moved, markdown)


class HouseStyle(griffe.Extension):
    """Docstrings as they are written here: ``:func:`~package.name``` is a link, and an example is code."""

    ROLE = re.compile(r':(?:class|func|meth):`~?([\w.]+)`')

    def on_object(self, *, obj: griffe.Object, **kwargs) -> None:
        def link(match: re.Match) -> str:
            try:
                path = match[1] if match[1].startswith('mmresattn.') else obj.resolve(match[1])
            except griffe.NameResolutionError:
                path = match[1]
            shown = f'<code>{match[1].rpartition(".")[2]}</code>'
            return f'<autoref identifier="{path}" optional>{shown}</autoref>'  # plain where the site has no such name

        if obj.docstring:
            text = re.sub(r'(?m)^Example:$', 'Examples:', obj.docstring.value)
            obj.docstring.value = self.ROLE.sub(link, text)
