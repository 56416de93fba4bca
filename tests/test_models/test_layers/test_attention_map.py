import copy
import pickle
import threading

import pytest
import torch
from torch import nn

from mmresattn.models.layers import AttentionMap, attention_maps, checkpoint, edit_attention, record_attention


class Gate(nn.Module):
    """y = conv(x) * sigmoid(score(x)): the smallest network with attention."""

    def __init__(self, kind='mixed'):
        super().__init__()
        self.score = nn.Conv2d(3, 3, 1)
        self.conv = nn.Conv2d(3, 3, 1)
        self.map = AttentionMap(kind)

    def forward(self, x):
        return self.conv(x) * self.map(self.score(x).sigmoid())


class Net(nn.Module):
    """Two gates; the second one runs `passes` times."""

    def __init__(self, passes=1, with_cp=False):
        super().__init__()
        self.first, self.second = Gate(), Gate()
        self.passes, self.with_cp = passes, with_cp

    def forward(self, x):
        x = checkpoint(self.first, x) if self.with_cp else self.first(x)
        for _ in range(self.passes):
            x = self.second(x)
        return x


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net()


@pytest.fixture
def x():
    return torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(1), requires_grad=True)


def test_records_every_map_by_name(net, x):
    with record_attention(net) as maps:
        net(x)
    assert list(maps) == ['first.map', 'second.map']
    assert torch.equal(maps['first.map'], net.first.score(x).sigmoid())
    assert not maps['first.map'].requires_grad
    assert not any(tap.watch for tap in attention_maps(net).values())


def test_grad_keeps_the_graph(net, x):
    with record_attention(net, grad=True) as maps:
        net(x)
    maps['first.map'].sum().backward()
    assert net.first.score.weight.grad is not None and net.second.score.weight.grad is None


def test_last_map_or_every_map():
    net, x = Net(passes=3), torch.randn(1, 3, 2, 2)
    with record_attention(net, every=True) as every, record_attention(net) as last:
        net(x)
        net(x)  # a new forward empties the dict
    assert [len(maps) for maps in every.values()] == [1, 3]
    assert torch.equal(every['second.map'][-1], last['second.map'])
    wrapped = nn.DataParallel(net)
    with record_attention(wrapped, every=True) as every:
        wrapped(x)
        wrapped.module(x)  # as MMEngine's DDP does to test
    assert [len(maps) for maps in every.values()] == [1, 3]


def test_edits_replace_maps_and_are_recorded(net, x):
    with edit_attention(net, {'first.map': torch.zeros_like}):
        assert torch.equal(net(x), net.second(torch.zeros_like(x)))
    for contexts in (  # whichever was opened first
        lambda: (record_attention(net), edit_attention(net, {'first.map': torch.ones(1, 3, 4, 5)})),
        lambda: (edit_attention(net, {'first.map': torch.ones(1, 3, 4, 5)}), record_attention(net)),
    ):
        one, other = contexts()
        with one as a, other as b:
            out = net(x)
        maps = a or b
        assert torch.equal(maps['first.map'], torch.ones(2, 3, 4, 5))
        assert torch.equal(out, net.second(net.first.conv(x)))


def test_tensor_edits_are_resized_bilinearly(net, x):
    ramp = torch.linspace(0, 1, 2).expand(1, 3, 1, 2)
    with edit_attention(net, {'first.map': ramp}), record_attention(net) as maps:
        net(x)
    # Centres of 5 pixels over 2: positions -0.3, 0.1, 0.5, 0.9, 1.3, clamped.
    assert torch.allclose(maps['first.map'][0, 0, 0], torch.tensor([0, 0.1, 0.5, 0.9, 1.0]))


@pytest.mark.parametrize(
    ('edit', 'error', 'message'),
    [
        (torch.ones(1, 1, 4, 5), ValueError, r'\(1, 1, 4, 5\); expected \(1 or 2, 3, height, width\)'),
        (torch.ones(3, 3, 4, 5), ValueError, 'expected'),
        (torch.ones(4, 5), ValueError, 'expected'),
        (lambda m: m[:1], ValueError, 'must keep the shape'),
        (0.5, TypeError, 'tensor or a function'),
    ],
)
def test_edits_that_do_not_fit(net, x, edit, error, message):
    with pytest.raises(error, match=message), edit_attention(net, {'first.map': edit}):
        net(x)
    assert not net.first.map.watch  # closed after the error


def test_pairs_are_not_resized(x):
    gate = Gate('pairwise')
    with pytest.raises(ValueError, match='cannot be resized'), edit_attention(gate, {'map': torch.ones(1, 3, 2, 2)}):
        gate(x)


def test_unknown_names_are_listed(net):
    for context in (record_attention(net, ['third.map']), edit_attention(net, {'third.map': torch.ones_like})):
        with pytest.raises(KeyError, match=r"third.map.*\['first.map', 'second.map'\]"), context:
            pass


def test_unknown_kind():
    with pytest.raises(ValueError, match='pairwise'):
        AttentionMap('global')


def test_names_are_those_of_the_bare_model(net):
    wrapped = torch.compile(nn.DataParallel(net), backend='eager')
    assert list(attention_maps(wrapped)) == ['first.map', 'second.map']
    named = nn.Module()
    named.module, named.map = Gate(), AttentionMap()  # a name of the model's own
    assert list(attention_maps(named)) == ['module.map', 'map']


def test_data_parallel_copies_are_refused(net):
    wrapped = nn.DataParallel(net)
    wrapped.device_ids = [0, 1]
    with pytest.raises(ValueError, match='DDP'), record_attention(wrapped):
        pass


def test_threads_do_not_see_each_other(net, x):
    plain = net(x)
    seen, entered, finished = {}, threading.Event(), threading.Event()

    def other():
        entered.wait()
        seen['plain'] = net(x)
        with edit_attention(net, {'first.map': torch.zeros_like}), record_attention(net) as maps:
            seen['zeros'] = net(x)
        seen['map'] = maps['first.map']
        finished.set()

    thread = threading.Thread(target=other)
    thread.start()
    with edit_attention(net, {'first.map': torch.ones_like}), record_attention(net) as maps:
        entered.set()
        finished.wait()
        assert not maps  # the other thread's forwards were not recorded here
        ones = net(x)
    thread.join()
    assert torch.equal(seen['plain'], plain)
    assert torch.equal(seen['zeros'], net.second(torch.zeros_like(x))) and not seen['map'].any()
    assert torch.equal(ones, net.second(net.first.conv(x)))


@pytest.mark.parametrize('inside', [True, False], ids=['backward-inside', 'backward-after'])
def test_checkpointing_recomputes_under_the_edits_of_the_forward(x, inside):
    def gradients(with_cp):
        torch.manual_seed(0)
        net = Net(with_cp=with_cp)
        with (
            edit_attention(net, {'first.map': lambda weight: 0.3 * weight.flip(-1)}),
            record_attention(net, every=True) as maps,
        ):
            out = net(x).square().sum()
            if inside:
                out.backward()
        if not inside:
            with edit_attention(net, {'first.map': torch.zeros_like}):  # a later edit is not this forward's
                out.backward()
        assert [len(recorded) for recorded in maps.values()] == [1, 1]
        return [parameter.grad for parameter in net.parameters()]

    for plain, recomputed in zip(gradients(False), gradients(True)):
        assert torch.equal(plain, recomputed)


def test_recomputation_leaves_the_contexts_of_other_threads_alone(x):
    net, left, closed = Net(with_cp=True), threading.Event(), threading.Event()
    plain = net(x).detach()
    seen = {}

    class Slow(torch.autograd.Function):
        """Waits in the backward pass of the recomputed part, while the other thread closes its context."""

        @staticmethod
        def forward(ctx, x):
            if left.is_set() and threading.current_thread() is threading.main_thread():
                closed.wait(10)
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            return grad

    def other():
        with edit_attention(net, {'first.map': torch.zeros_like}):
            left.set()
            recomputing.wait(10)
            seen['zeros'] = net(x).detach()
        closed.set()

    recomputing = threading.Event()
    thread = threading.Thread(target=other)
    with edit_attention(net, {'first.map': lambda weight: Slow.apply(weight)}):
        out = net(x).sum()
    thread.start()
    left.wait(10)
    recomputing.set()
    out.backward()
    thread.join()
    assert torch.equal(seen['zeros'], net.second(torch.zeros_like(x)))
    assert torch.equal(net(x), plain) and not net.first.map.watch


def test_copies_watch_nothing(net, x):
    plain = net(x)
    with edit_attention(net, {'first.map': torch.zeros_like}), record_attention(net, grad=True):
        net(x)
        copies = [copy.deepcopy(net), pickle.loads(pickle.dumps(net))]
    assert all(torch.equal(copied(x), plain) for copied in copies)


def test_compiled_models_are_recorded_edited_and_restored(net, x):
    plain = net(x)
    compiled = torch.compile(net, backend='eager', fullgraph=True)
    assert torch.equal(compiled(x), plain)
    for strength in torch.linspace(0, 1, 20):  # more contexts than Dynamo recompiles: they share one graph
        with (
            edit_attention(compiled, {'first.map': strength.expand(1, 3, 1, 1)}),
            record_attention(compiled) as maps,
        ):
            out = compiled(x)
        assert torch.allclose(out, net.second(strength * net.first.conv(x)), atol=1e-6)
        assert torch.allclose(maps['first.map'], strength.expand(2, 3, 4, 5))
        assert list(maps) == ['first.map', 'second.map']
    assert torch.equal(compiled(x), plain)


@pytest.mark.parametrize('strict', [True, False])
def test_exports_with_the_map_as_an_output(net, x, strict):
    class WithMap(nn.Module):
        def __init__(self, maps):
            super().__init__()
            self.net, self.maps = net, maps

        def forward(self, x):
            return self.net(x), self.maps['first.map']

    x = x.detach()
    with record_attention(net, grad=True) as maps:
        net(x)
        program = torch.export.export(WithMap(maps), (x,), strict=strict)
    y = torch.rand_like(x)
    out, attention = program.module()(y)
    assert torch.allclose(out, net(y)) and torch.allclose(attention, net.first.score(y).sigmoid())
