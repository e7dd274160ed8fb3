"""The labels of the contract, of the ATR human parsing set (Liang et al. 2015), by name and number."""

from __future__ import annotations

from dressform_contract import LABELS as ATR

ATR_ID = {name: number for number, name in enumerate(ATR)}

__all__ = ["ATR", "ATR_ID"]
