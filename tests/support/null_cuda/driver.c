#define Z(n) \
  int n() { return 0; }
Z(cuCtxSetCurrent)
Z(cuFuncGetAttribute) Z(cuFuncSetAttribute) Z(cuFuncSetCacheConfig) Z(cuLaunchCooperativeKernel) Z(cuLaunchKernel)
    Z(cuLinkAddData_v2) Z(cuLinkComplete) Z(cuLinkCreate_v2) Z(cuModuleGetFunction) Z(cuModuleLoad) Z(cuModuleLoadData)
        Z(cuModuleLoadDataEx) Z(cuModuleUnload) Z(cuOccupancyMaxActiveBlocksPerMultiprocessor) Z(cuTensorMapEncodeTiled)
            Z(cuInit) int cuCtxGetCurrent(void** c) {
  *c = (void*)1;
  return 0;
}
int cuDeviceGet(int* d, int n) {
  *d = n;
  return 0;
}
int cuDeviceGetAttribute(int* v, int a, int d) {
  *v = 0;
  return 0;
}
int cuDevicePrimaryCtxGetState(int d, unsigned* f, int* a) {
  if (f) *f = 0;
  *a = 1;
  return 0;
}
int cuDevicePrimaryCtxRetain(void** c, int d) {
  *c = (void*)1;
  return 0;
}
int cuGetErrorString(int e, const char** s) {
  *s = "null";
  return 0;
}
int cuPointerGetAttribute(void* d, int a, unsigned long p) { return 1; }
