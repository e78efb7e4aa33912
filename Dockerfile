# The server in a container, without root.  compose.yaml runs it; docs/tools.rst has the steps.
FROM python:3.13-slim-trixie AS build
WORKDIR /source
COPY setup.cfg setup.py pyproject.toml README.rst LICENSE ./
COPY mta mta
COPY twisted twisted
# The last command lets Twisted remember its plugins: later, /opt/mta can't be written to.
RUN python -m venv /opt/mta \
    && /opt/mta/bin/pip install --no-cache-dir '.[metrics,postgres]' \
    && /opt/mta/bin/twistd --help > /dev/null

FROM python:3.13-slim-trixie
COPY --from=build /opt/mta /opt/mta
# The number is the owner of what is in the volumes: it stays the same in every version.
RUN groupadd --system --gid 825 mta \
    && useradd --system --uid 825 --gid mta --home-dir /var/lib/mta --create-home \
        --shell /usr/sbin/nologin mta \
    && install -d -o mta -g mta -m 750 /etc/mta /var/mail \
    && install -d -o mta -g mta -m 711 /var/spool/mta
ENV PATH=/opt/mta/bin:$PATH PYTHONUNBUFFERED=1
USER 825:825
WORKDIR /var/lib/mta
VOLUME ["/etc/mta", "/var/spool/mta", "/var/mail"]
EXPOSE 25 366 465 587
# Orderly: deliveries end, and the rest stays in the spool.
STOPSIGNAL SIGTERM
CMD ["twistd", "--nodaemon", "--pidfile=", "mta", "--config", "/etc/mta/mta.yaml"]
