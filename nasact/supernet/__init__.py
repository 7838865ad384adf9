"""From a model to its supernet and back: relax, genotype, derive.

Knows surgery, mixtures and the catalogue; must not know data, training or searches.
"""

from nasact.supernet.genotype import Genotype, SiteGene
from nasact.supernet.supernet import Supernet, relax, site_shapes
from nasact.supernet.top_k import derive
from nasact.surgery import Site, SiteReport, Unreachable, find_sites

__all__ = [
    "Genotype",
    "Site",
    "SiteGene",
    "SiteReport",
    "Supernet",
    "Unreachable",
    "derive",
    "find_sites",
    "relax",
    "site_shapes",
]
