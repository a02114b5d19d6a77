"""The commands of `nearsight faces`."""

import click

from nearsight.cli.commands.faces import (
    confirm,
    enroll,
    export,
    forget,
    group,
    hide,
    identify,
    merge,
    name,
    reject,
    rename,
    rm,
    split,
    undo,
    upgrade,
    verify,
)
from nearsight.cli.commands.faces import list as list_persons
from nearsight.cli.framework import Subgroup


@click.group(
    cls=Subgroup,
    commands=[
        enroll.enroll,
        identify.identify,
        verify.verify,
        group.group,
        name.name,
        list_persons.list_,
        rename.rename,
        merge.merge,
        confirm.confirm,
        reject.reject,
        split.split,
        hide.hide,
        undo.undo,
        rm.rm,
        forget.forget,
        export.export,
        upgrade.upgrade,
    ],
)
def faces() -> None:
    """Recognize people who have consented to it.

    Photographs of faces and the vectors computed from them are personal data. In many countries they are
    biometric data under special protection. Enroll people only with their consent, and remove them when
    they withdraw it. Everything stays on this machine. No age, gender, origin or mood is guessed.
    A match is a likelihood, not proof.
    """
