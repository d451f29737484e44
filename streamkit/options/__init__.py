"""What a deployment may choose, as one frozen value.

    Options(high_water=256 * 1024)                     keyword arguments
    Options.from_mapping({"heartbeat": "none"})        a dict, or the strings of an ini file
    app_wide.merged(of_one_response)                   what is set there wins over what is set here

Rule: whoever reads an option need not check it again; all faults are reported in one `OptionsError`.
"""

from .rules import CODINGS, DEFAULTS, RULES, Completion
from .value import Options

__all__ = ["CODINGS", "DEFAULTS", "RULES", "Completion", "Options"]
