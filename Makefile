# `make demo` and `make test` need git, Python 3.11 or newer and make; everything else they set up themselves.
# Beside what is there already, with another Python: make test PYTHON=python3.13 VENV=.venv/3.13
PYTHON ?= python3
VENV := .venv
RUN := $(abspath $(VENV))/bin/python
LOWEST := $(VENV)/lowest
PYTEST := -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

.PHONY: demo test test-lowest images bench fuzz audit clean

# A recording of your own: make demo SOUND=my.mp3
demo: SOUND ?= examples/chorale/matched/mixture.flac
demo: $(VENV)/user
	name=$$(basename "$(SOUND)") && $(RUN) CNMF.py "$(SOUND)" --stems --listen -o "demo/$${name%.*}"

test: $(VENV)/dev
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) $(PYTEST) -rs
	$(RUN) tests/kernels.py
	@command -v chromium >/dev/null \
		|| echo "Left out: listen.html in a browser. There is no chromium here (on Debian: apt install chromium)."
	@command -v ffmpeg >/dev/null \
		|| echo "Left out: m4a and the like. There is no ffmpeg here (on Debian: apt install ffmpeg)."

test-lowest: $(LOWEST)/dev
	$(LOWEST)/bin/python $(PYTEST)

images: $(VENV)/dev
	$(RUN) tools/draw_images.py

bench: $(VENV)/dev
	$(RUN) benchmarks/speed.py

fuzz: $(VENV)/fuzz
	$(RUN) tests/fuzz_files.py -max_total_time=110 -timeout=20 -rss_limit_mb=4096

audit: $(VENV)/dev
	$(RUN) -m pip install --quiet --disable-pip-version-check 'pip-audit>=2.7,<3'
	@$(RUN) -m pip_audit --progress-spinner off -r requirements.txt > $(VENV)/audit.txt 2>&1; status=$$?; \
		if grep -q "^Found [1-9]" $(VENV)/audit.txt; then cat $(VENV)/audit.txt; exit 1; \
		elif grep -qi "could not be audited\|connection\|timed out" $(VENV)/audit.txt; \
		then echo "make audit: the database could not be asked about every package, see $(VENV)/audit.txt"; \
		else cat $(VENV)/audit.txt; exit $$status; fi

clean:
	rm -rf $(VENV) demo

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed; say which with make PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/user: requirements.txt | $(VENV)/bin/python
	$(RUN) -m pip install --quiet --disable-pip-version-check -r $<
	touch $@

$(VENV)/fuzz: requirements/fuzz.txt $(VENV)/dev
	$(RUN) -m pip install --quiet --disable-pip-version-check -r $<
	touch $@

$(VENV)/dev: requirements/dev.txt requirements/dask.txt requirements.txt | $(VENV)/bin/python
	$(RUN) -m pip install --quiet --disable-pip-version-check -r $<
	touch $@ $(VENV)/user

# The lowest versions of what a user needs, and the tests' own tools as they are today.
$(LOWEST)/dev: requirements/dev.txt requirements/dask.txt requirements.txt
	$(PYTHON) -m venv --clear $(LOWEST)
	sed -n 's/^\([a-z]*\)>=\([^,]*\),.*/\1==\2/p' requirements.txt > $(LOWEST)/lowest.txt
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check -c $(LOWEST)/lowest.txt -r $<
	touch $@
