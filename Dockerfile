# Runs a packed bundle on a folder of scans, on a CPU or a GPU. Research only, not for clinical use.
# docs/how-to/hospital.md says how to build and run it. The build context is this repository with a package in dist/.
FROM python:3.11-slim

# the build of PyTorch: cpu, or cu130 and others for CUDA
ARG TORCH=cpu
WORKDIR /source
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY common ./common
RUN python -m pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/${TORCH} --constraint constraints.txt ".[dicom,fast,itk]"

# folder of the package in dist/
ARG PACKAGE
COPY dist/${PACKAGE} /bundle
# MONAI asks for the name of the user, and other libraries for HOME; a user given by number has neither
ENV USER=bundle HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
RUN python -m common verify /bundle
RUN mkdir /scans /results
WORKDIR /tmp
USER 10001:10001
ENTRYPOINT ["python", "-m", "monai.bundle", "run", "--config_file", "/bundle/configs/inference.json", "--dataset_dir", "/scans", "--output_dir", "/results"]
