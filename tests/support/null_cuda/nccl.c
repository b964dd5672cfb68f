#include <stdlib.h>
#include <string.h>
extern int nullcuda_library(void*, const char*);
extern int nullcuda_leaves_nccl();
int ncclCommAbort() { return nullcuda_leaves_nccl(); }
int ncclCommDestroy() { return nullcuda_leaves_nccl(); }
int ncclCommFinalize() { return nullcuda_leaves_nccl(); }
#define Z(n) \
  int n() { return 0; }
Z(ncclGroupStart) Z(ncclGroupEnd) Z(ncclCommRegister) Z(ncclCommDeregister)
    Z(ncclCommRevoke) Z(ncclRedOpDestroy) Z(ncclCommWindowRegister) Z(ncclCommWindowDeregister) Z(ncclGroupSimulateEnd)
        Z(ncclCommSuspend) Z(ncclCommResume) Z(ncclCommMemStats) int ncclGetUniqueId(char* id) {
  memset(id, 7, 128);
  return 0;
}
int ncclCommGetUniqueId(void* c, char* id) {
  memset(id, 7, 128);
  return 0;
}
int ncclCommInitRankConfig(void** c) {
  *c = calloc(1, 4096);
  return 0;
}
int ncclCommInitRank(void** c) {
  *c = calloc(1, 4096);
  return 0;
}
int ncclCommInitRankScalable(void** c) {
  *c = calloc(1, 4096);
  return 0;
}
int ncclCommGetAsyncError(void* c, int* e) {
  *e = 0;
  return 0;
}
int ncclGetVersion(int* v) {
  *v = 23007;
  return 0;
}
int ncclCommCount(void* c, int* n) {
  *n = 2;
  return 0;
}
int ncclCommUserRank(void* c, int* n) {
  *n = 0;
  return 0;
}
const char* ncclGetErrorString(int e) { return "null"; }
const char* ncclGetLastError(void* c) { return ""; }
int ncclAllReduce(void* a, void* b, size_t n, int t, int op, void* c, void* s) { return nullcuda_library(s, "nccl allreduce"); }
int ncclBroadcast(void* a, void* b, size_t n, int t, int r, void* c, void* s) { return nullcuda_library(s, "nccl broadcast"); }
int ncclBcast(void* a, size_t n, int t, int r, void* c, void* s) { return nullcuda_library(s, "nccl broadcast"); }
int ncclAllGather(void* a, void* b, size_t n, int t, void* c, void* s) { return nullcuda_library(s, "nccl allgather"); }
