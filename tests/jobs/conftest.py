"""What tests of all commands share."""

from __future__ import annotations

import pytest

from jobs.__main__ import main


@pytest.fixture
def footage(capsys: pytest.CaptureFixture[str]):
    """Runs a command; returns its exit code, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return int(end.value.code or 0), captured.out, captured.err

    return run
