import pytest

from mmresattn.weights.files import whole_folder


def test_a_folder_has_its_name_only_when_it_is_complete(tmp_path):
    folder = tmp_path / 'data' / 'set'
    with pytest.raises(KeyError), whole_folder(folder) as part:
        (part / 'left').touch()
        raise KeyError
    assert not folder.exists() and (part / 'left').exists()
    with whole_folder(folder) as part:
        (part / 'file').touch()
    assert [path.name for path in folder.iterdir()] == ['file'] and not part.exists()
