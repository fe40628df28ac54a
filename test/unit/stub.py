"""Functions of Salt's loaders replaced by mocks that keep their signature."""

from unittest.mock import create_autospec


def stub(loader, name, **kwargs):
    """Replace ``module.function`` in a loader; returns the mock."""
    real = loader[name].func
    mock = create_autospec(real, **kwargs)
    mock.__module__ = real.__module__  # the loader looks for it
    # Since Salt 3008 what modules see as __salt__ is a loader of its own.
    inner = loader.pack.get("__salt__") if loader.tag == "module" else None
    for each in (loader, loader if inner is None else inner):
        each[name]  # loads the whole module, which would replace the mock later
        each._dict[name] = mock
    return mock
