"""Makes ``twistd mta`` and ``twist mta`` known.

Every ``twistd`` on the machine imports this file, so it imports nothing of ours.
"""

from twisted.application.service import ServiceMaker

mta = ServiceMaker("mta", "mta.service", "A mail transfer agent that carries mail both ways", "mta")
