/* vision_tower: an image encoder's weights under the names of those who read BLIP-2, for export.
 *
 *     VISION_TOWER_HF      transformers' Blip2VisionModel, vision_model.*: EVA-g alone
 *     VISION_TOWER_LAVIS   LAVIS, visual_encoder.*: EVA-g, and CLIP with QuickGELU, as eva_clip_g and clip_L
 *
 * Only the blocks in front of the tap are written: neither reader leaves one out of a whole model's file. Positions are
 * resized to the pixels that are asked for. */
#pragma once
#include "checkpoints/export.h"
#include "checkpoints/vision.h"

typedef enum { VISION_TOWER_HF, VISION_TOWER_LAVIS } VisionTowerKind;

/* A tower that lives as long as e, until vision_tower_free (also after an error). size: pixels of a side, 0: the
 * encoder's own. ERR_USAGE: a family that the reader has no class for, or a tap behind a norm: BLIP-2 has its own. */
Status vision_tower(HfTower *t, const Vision *e, VisionTowerKind kind, int size, VitTap tap);
void vision_tower_free(HfTower *t);
