/* export: our weights for other frameworks.
 *
 * hf_export writes a directory that transformers' Blip2ForImageTextRetrieval.from_pretrained takes: model.safetensors
 * with Hugging Face's names and config.json. That class has no LM head and no temperature, so cls.* and temp stay
 * behind, and it has a vision tower: with one given (vision_hf.h) the directory is complete; without, transformers will
 * say that vision_model.* was initialised anew (all but post_layernorm, which is our ln_vision). lavis_export writes
 * one .safetensors file with LAVIS names, aliases left out; torch.load is not needed to read it.
 *
 * Called by the command `export`. Tensors are taken as they are, in any element type. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "data/format/json.h"
#include "data/format/safetensors.h"
#include "kernels/base/err.h"

/* Sizes for config.json, by the letters of the parameter table, and what is said of the vision tower. */
typedef struct {
    int64_t Q, C, H, F, L, X, E, Z, V, N;        /* X: cross-attention in layers with index % X == 0; N: positions */
    int64_t vision_layers, vision_heads, vision_mlp, image_size, patch_size;
    const char *vision_act;
    double vision_eps;                           /* also that of post_layernorm = ln_vision in transformers */
    double eps;
    const char *act;
    double dropout;
} HfDims;

/* A vision tower: tensors by name, type F32 and shape; numbers are made one tensor at a time. */
typedef struct {
    const StTensor *tensors;
    size_t n;
    Status (*make)(const void *ctx, size_t i, float *dst);
    const void *ctx;
} HfTower;

/* Fills the vision fields by the width E: 1408 is BLIP-2's ViT-g (39 layers in use), 1024 its CLIP ViT-L (23); any
 * other gets one layer, as a stand-in that transformers can build. */
void hf_vision_defaults(HfDims *d);

/* tensors: LAVIS names, with data. tower: NULL, or what goes with them. `left_out` (may be NULL) becomes how many have
 * no counterpart. The directory is made if absent. ERR_IO, ERR_FORMAT, ERR_MEMORY. */
Status hf_export(const char *dir, const HfDims *d, const StTensor *tensors, size_t n, const HfTower *tower,
                 size_t *left_out);

/* The parts of it. Tensors under names of their own (FRONT NAME), whose data stays where it is; one file of them and of
 * the tower; blocks of config.json, of that model_type. */
typedef struct { StTensor *t; size_t n; } ExportList;
Status export_add(ExportList *l, const StTensor *t, const char *front, const char *name);
Status export_put(ExportList *l, const HfTower *tower, const char *path);
void export_free(ExportList *l);
void export_qformer(JsonWriter *w, const HfDims *d, const char *type);
void export_vision(JsonWriter *w, const HfDims *d, const char *type);

/* tower: NULL, or visual_encoder.* that goes with them.
 * What is trained, under LAVIS's names, and the tower; other tensors (a language model's) stay behind. speak: its name
 * of the projection of stage 2, opt_proj, t5_proj or llm_proj; NULL: there is none. *count: the tensors written. */
Status lavis_export(const char *path, const StTensor *tensors, size_t n, const HfTower *tower, const char *speak,
                    size_t *count);
