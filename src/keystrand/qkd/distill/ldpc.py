"""tmp"""

from keystrand.qkd.distill import cascade

Corrector, Oracle = cascade.Corrector, cascade.Oracle
