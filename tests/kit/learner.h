/* learner: what tests ask of a model that learns, and of one that must not. */
#pragma once
#include "kernels/model/lm.h"
#include "train/trainer.h"

/* The update alone, of gradients that several calls have added up; as trainer_step, which makes one and takes it. */
Status learner_update(Trainer *t, const AdamSpec *a, double lr, int64_t number, const ParamTensor **bad);

/* A sum over all bytes of the store: the same before and after whatever must not change it. ERR_MEMORY, ERR_DEVICE. */
Status learner_checksum(const Lm *m, uint64_t *sum);
