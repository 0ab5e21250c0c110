"""Experimental functions, whose interfaces may change."""

from gradtx.experimental import aggregating as aggregating
