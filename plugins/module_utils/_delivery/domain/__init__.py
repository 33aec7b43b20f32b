# SPDX-License-Identifier: Apache-2.0
"""Frozen values of the domain. No I/O.

- ``uri``: what ``model_uri`` can say.
- ``source``: what a model URI means now: exact version, artifact root.
- ``manifest``: the files of a model with size and sha256, their digest, differences, confinement.
- ``provenance``: what manifest and signature say of an artifact's bytes, and who says so.
- ``published``: the publisher's manifest, as it lies beside a model in the registry.
- ``layout``: what lies in an artifact, and the model folder to be made of it.
- ``config_pbtxt``: config.pbtxt through Triton's protobuf: parse, overlay, deploy id, render.
- ``pbtxt``: protobuf's text format as Triton's own parser cuts it into words.
- ``backends``: which backend Triton runs a model with, and which file that needs.
- ``allowed``: what of a model the options of a place do not allow, and what of it is code.
- ``allowed_parts``: the tables for that: what a model of each backend may be made of.
- ``allowed_amounts``: how much a configuration may ask of a server there.
- ``vllm_settings``: what ``model.json`` may say to vLLM there.
- ``config_paths``: the paths that a configuration names, and whether they stay in its folder.
- ``ensembles``: why an ensemble cannot be loaded, as far as its configuration tells.
- ``members``: why an ensemble cannot be loaded over its members.
- ``config_rules``: why Triton refuses a configuration, as far as its own fields tell.
- ``named_files``: why a model cannot be loaded for the files which its configuration names.
- ``releases``: which fields of config.pbtxt came with which release of Triton.
- ``servable``: what is known, before Triton is asked, to keep a model from loading.
- ``environments``: Python environments of models, as those see them who do not make them.
- ``pyfunc``: what a model that MLflow runs takes and answers, and what its worker is told.
- ``record``: what is written down of a deployment.
- ``journal``: what is written down of a change before it begins.
- ``signers``: whose signatures are trusted, and what is not trusted any more.
- ``marker``: what says where the state of a repository lies.
- ``fields``: reads the JSON of these, and says what about it is wrong.
- ``yaml_text``: reads the YAML that a publisher may have written, with bounds.
- ``requirements``: which packages a model needs, and what of that is refused.
- ``desired``: what a user asks for of one model.
- ``cases``: what a user may say to verify with.
- ``stored``: what the repository holds of one model.
- ``observed``: what is there of one model: record, files, servers.
- ``served``: what one server says of one model.
- ``served_pyfunc``: what a served configuration says of a model that MLflow's pyfunc runs.
"""
