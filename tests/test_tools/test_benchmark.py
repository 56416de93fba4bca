import json

import performance
import pytest
import torch
from performance import benchmark

from tests.conftest import ROOT

DIGITS = str(ROOT / 'configs/resattn/attention56_digits.py')


def test_modes_are_words():
    assert performance.split_commit('train+commit=a06ee69') == ('train', 'a06ee69')
    assert benchmark.parse_mode('train+tf32') == {'train', 'tf32'}
    with pytest.raises(ValueError, match="'fast' of the mode"):
        benchmark.parse_mode('train+fast')


def test_every_preset_is_of_known_modes():
    for groups in performance.PRESETS.values():
        for group in groups:
            assert all(benchmark.parse_mode(performance.split_commit(mode)[0]) for mode in group['modes'])
            assert all((ROOT / name).is_file() for name in group['models'] if ':' not in name)


def test_exponents_of_powers():
    x = [1.0, 2.0, 5.0, 9.0]
    assert performance.exponent(x, [3 * value**1.7 for value in x]) == pytest.approx(1.7)


def test_ratios_are_of_neighbours():
    """A machine that gets four times slower in the middle changes times, and neither ratios nor shares."""
    first, other = [(1.0, 10.0), (4.0, 2.5), (1.0, 10.0)], [(2.0, 10.0), (8.0, 2.5), (2.0, 10.0)]
    results = [dict(name=name, size=4, batch=6, mode=name, flops=5, peak_bytes=2**20) for name in ('eager', 'tf32')]
    benchmark.summarise(results, [first, other])
    found = results[1]
    assert found['ratio'] == dict(median=0.5, low=0.5, high=0.5)
    assert found['share'] == dict(median=0.25, low=0.25, high=0.25)
    assert found['images_per_second'] == dict(median=3, low=1.875, high=3)
    assert '| tf32 | 4 | 6 | tf32 | 3 | 1.875 to 3 | 0.50 | 1.00 | 0.25 | 1.0 |' in benchmark.table([found])


def test_rates_are_those_of_the_last_model_in_the_same_mode():
    case = dict(mode='eager', size=4, batch=6)
    results = [
        dict(case, flops=30),
        dict(case, mode='tf32', flops=30),
        dict(case, flops=10),
        dict(case, flops=5, size=8),
    ]
    benchmark.summarise(results, [[(4.0, 1), (8.0, 1)], [(1.0, 1)], [(1.0, 1), (2.0, 1)], []])
    assert [result.get('per_multiply_add', {}).get('median') for result in results] == [0.75, 1, 1, None]


def test_flops_and_memory_are_counted():
    """Multiply-adds as in README.md, twice; memory of a training step by what the layers make."""
    runner = benchmark.Runner(DIGITS, 16, 2, 'channels_last')
    assert runner.flops == pytest.approx(2 * 2 * 0.03e9, rel=0.1)
    assert runner.images.is_contiguous(memory_format=torch.channels_last)
    largest = 2 * 64 * 16 * 16 * 4
    train = benchmark.Runner(DIGITS, 16, 2, 'train')
    train.step()
    assert train.flops == 3 * runner.flops
    assert 2 * largest < runner.memory() < 20 * largest < train.memory()


def test_findings_K6_4_a_command_writes_its_table_and_no_line_of_the_profiler(tmp_path, python):
    done = python('tools/benchmark.py', DIGITS, 'torchvision:nothing', '--modes', 'eager', '--size', 16, '--batch-size',
                  1, '--rounds', 2, '--seconds', 0.01, '--threads', 1, '--out', tmp_path / 'found')  # fmt: skip
    assert done.returncode == 0, done.stderr
    ok, wrong = json.loads((tmp_path / 'found.json').read_text())['groups'][0]
    assert ok['ratio']['median'] == 1 and ok['peak_bytes'] > 0 and 0 < ok['share']['median'] < 2
    assert 'nothing' in wrong['error']
    assert (tmp_path / 'found.md').read_text().count('\n|') == 4
    assert 'torch: ' in done.stdout
    assert 'profiler' not in done.stderr and 'gpuGetDeviceCount' not in done.stderr


def test_growth_is_drawn(tmp_path, saved_figures):
    rows = [
        dict(mode='eager', size=size, step_seconds=dict(median=size**2 / 1e4), peak_bytes=size**2 * 100)
        for size in (64, 128, 256)
    ]
    lines = performance.growth('size', rows)
    assert [(line['of'], round(line['exponent'], 6)) for line in lines] == [('time', 1), ('memory', 1)]
    performance.plot(lines, tmp_path / 'growth.png')
    time, memory = (panel.lines[0] for panel in saved_figures['growth.png'].axes)
    assert list(time.get_ydata()) == [size**2 / 1e4 for size in (64, 128, 256)]
    assert list(memory.get_ydata()) == [size**2 * 100 / 2**20 for size in (64, 128, 256)]
    assert 'exponent 1.00' in time.get_label()


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_without_a_gpu_the_preset_says_so():
    with pytest.raises(SystemExit, match='needs a GPU'):
        performance.main(['--preset', 'gpu'])
