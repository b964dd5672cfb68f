// Only the handle is looked at; the rest of the arguments stay where they are.
extern int nullcuda_library(void*, const char*);
#define G(n) \
  int n(void** h) { return nullcuda_library(h[0], "cublas") ? 13 : 0; }
G(cublasSgemm_v2)
G(cublasDgemm_v2) G(cublasCgemm_v2) G(cublasZgemm_v2) G(cublasGemmEx) G(cublasSgemmEx) G(cublasGemmStridedBatchedEx)
    G(cublasSgemmStridedBatched) G(cublasDgemmStridedBatched) G(cublasSgemv_v2) G(cublasDgemv_v2) G(cublasSdot_v2)
        G(cublasDdot_v2) G(cublasDotEx) G(cudnnBatchNormalizationForwardTrainingEx) G(cudnnBatchNormalizationBackwardEx)
            G(cudnnBatchNormalizationForwardInference)
