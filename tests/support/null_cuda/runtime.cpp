// A CUDA runtime, cuBLAS and cuDNN that do nothing but keep the books: memory (with a cap), streams, events, stream capture and
// its rules, copies, launches. Kernels are counted by name and not run. For finding crashes, waits and launch counts without a
// GPU.
#include <cuda_runtime_api.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <atomic>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

typedef std::lock_guard<std::recursive_mutex> Guard;
static std::recursive_mutex& mu() {
  static auto* m = new std::recursive_mutex;
  return *m;
}
struct Graph {
  size_t nodes = 0;
};
struct Capture {
  uint64_t id;
  Graph* graph;
  cudaStreamCaptureMode mode;
  pthread_t thread;
  bool invalid = false;
};
struct Stream {
  Capture* capture = nullptr;
  int number;
};
struct Event {
  Capture* capture = nullptr;
  bool recorded = false;
};
static Stream& legacy() {
  static auto* s = new Stream;
  return *s;
}
static std::set<Capture*>& captures() {
  static auto* s = new std::set<Capture*>;
  return *s;
}
static std::map<uintptr_t, size_t>& device_mem() {
  static auto* m = new std::map<uintptr_t, size_t>;
  return *m;
}
static std::map<uintptr_t, size_t>& pinned_mem() {
  static auto* m = new std::map<uintptr_t, size_t>;
  return *m;
}
static std::unordered_map<const void*, std::string>& names() {
  static auto* m = new std::unordered_map<const void*, std::string>;
  return *m;
}
static std::map<std::string, long>& counts() {
  static auto* m = new std::map<std::string, long>;
  return *m;
}
static std::map<std::string, long>& kernels() {
  static auto* m = new std::map<std::string, long>;
  return *m;
}
static size_t used = 0, peak = 0;
static uint64_t next_id = 1;
static bool by_name = false;
static size_t cap() {
  static size_t c = getenv("NULLCUDA_MEM") ? strtoull(getenv("NULLCUDA_MEM"), 0, 10) : (size_t)139 << 30;
  return c;
}
static size_t cap_override = 0;
static thread_local cudaStreamCaptureMode my_mode = cudaStreamCaptureModeGlobal;
static thread_local cudaError_t last = cudaSuccess;
static thread_local int current = 0;
static void count(const char* what, long by = 1) {
  Guard g(mu());
  counts()[what] += by;
}
static cudaError_t fail(cudaError_t e) {
  last = e;
  return e;
}
static Stream* of(cudaStream_t s) {
  return (s == 0 || s == cudaStreamLegacy || s == cudaStreamPerThread) ? &legacy() : (Stream*)s;
}

// Potentially unsafe call: forbidden to this thread?
static bool forbidden() {
  Guard g(mu());
  if (my_mode == cudaStreamCaptureModeRelaxed) return false;
  for (auto* c : captures()) {
    if (pthread_equal(c->thread, pthread_self()) && c->mode != cudaStreamCaptureModeRelaxed) {
      c->invalid = true;
      counts()["VIOLATION unsafe call by the capturing thread"]++;
      return true;
    }
    if (c->mode == cudaStreamCaptureModeGlobal && my_mode == cudaStreamCaptureModeGlobal) {
      c->invalid = true;
      counts()["VIOLATION unsafe call by another thread"]++;
      return true;
    }
  }
  return false;
}
static bool inside(std::map<uintptr_t, size_t>& m, const void* p) {
  Guard g(mu());
  auto it = m.upper_bound((uintptr_t)p);
  if (it == m.begin()) return false;
  --it;
  return (uintptr_t)p < it->first + it->second;
}

static std::atomic<long>& graphs_alive() {
  static auto* n = new std::atomic<long>(0);
  return *n;
}

extern "C" {
// NCCL waits, without end, until the graphs that hold its exchanges are gone.
int nullcuda_leaves_nccl() {
  if (graphs_alive() > 0) count("VIOLATION NCCL is left while graphs are alive");
  return 0;
}
const char* nullcuda_report(int reset) {
  Guard g(mu());
  static std::string text;
  text.clear();
  for (auto& [k, v] : counts())
    if (v) text += k + "\t" + std::to_string(v) + "\n";
  text += "used bytes\t" + std::to_string(used) + "\npeak bytes\t" + std::to_string(peak) + "\n";
  if (reset) {
    counts().clear();
    kernels().clear();
    peak = used;
  }
  return text.c_str();
}
const char* nullcuda_kernels() {
  Guard g(mu());
  static std::string text;
  text.clear();
  for (auto& [k, v] : kernels()) text += std::to_string(v) + "\t" + k + "\n";
  return text.c_str();
}
void nullcuda_by_name(int on) { by_name = on; }
void nullcuda_cap(size_t bytes) { cap_override = bytes; }

cudaError_t cudaGetDeviceCount(int* n) {
  *n = getenv("NULLCUDA_DEVICES") ? atoi(getenv("NULLCUDA_DEVICES")) : 1;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp* p, int d) {
  memset(p, 0, sizeof *p);
  strcpy(p->name, "NULL H200");
  for (int i = 0; i < 16; i++) p->uuid.bytes[i] = i + d;
  p->totalGlobalMem = cap();
  p->sharedMemPerBlock = 49152;
  p->regsPerBlock = 65536;
  p->warpSize = 32;
  p->memPitch = 2147483647;
  p->maxThreadsPerBlock = 1024;
  p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024;
  p->maxThreadsDim[2] = 64;
  p->maxGridSize[0] = 2147483647;
  p->maxGridSize[1] = p->maxGridSize[2] = 65535;
  p->totalConstMem = 65536;
  p->major = 9;
  p->minor = 0;
  p->textureAlignment = 512;
  p->multiProcessorCount = 132;
  p->canMapHostMemory = 1;
  p->concurrentKernels = 1;
  p->asyncEngineCount = 3;
  p->unifiedAddressing = 1;
  p->l2CacheSize = 60 << 20;
  p->maxThreadsPerMultiProcessor = 2048;
  p->streamPrioritiesSupported = 1;
  p->sharedMemPerMultiprocessor = 233472;
  p->regsPerMultiprocessor = 65536;
  p->managedMemory = 1;
  p->sharedMemPerBlockOptin = 232448;
  p->maxBlocksPerMultiProcessor = 32;
  p->memoryPoolsSupported = 1;
  p->cooperativeLaunch = 1;
  p->clusterLaunch = 1;
  p->pciBusID = 1;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* v, enum cudaDeviceAttr a, int) {
  switch (a) {
    case cudaDevAttrMaxThreadsPerBlock:
      *v = 1024;
      break;
    case cudaDevAttrMaxSharedMemoryPerBlock:
      *v = 49152;
      break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *v = 232448;
      break;
    case cudaDevAttrMultiProcessorCount:
      *v = 132;
      break;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
      *v = 2048;
      break;
    case cudaDevAttrComputeCapabilityMajor:
      *v = 9;
      break;
    case cudaDevAttrComputeCapabilityMinor:
      *v = 0;
      break;
    case cudaDevAttrMaxGridDimX:
      *v = 2147483647;
      break;
    case cudaDevAttrWarpSize:
      *v = 32;
      break;
    default:
      *v = 0;
  }
  return cudaSuccess;
}
cudaError_t cudaDeviceGetPCIBusId(char* s, int n, int) {
  snprintf(s, n, "0000:01:00.0");
  return cudaSuccess;
}
cudaError_t cudaDeviceCanAccessPeer(int* v, int, int) {
  *v = 0;
  return cudaSuccess;
}
cudaError_t cudaDeviceEnablePeerAccess(int, unsigned) { return cudaSuccess; }
cudaError_t cudaDeviceGetStreamPriorityRange(int* lo, int* hi) {
  if (lo) *lo = 0;
  if (hi) *hi = -5;
  return cudaSuccess;
}
cudaError_t cudaStreamGetPriority(cudaStream_t, int* p) {
  *p = 0;
  return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* v) {
  *v = 13000;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* v) {
  *v = 13000;
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* d) {
  *d = current;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int d) {
  current = d;
  return cudaSuccess;
}
const char* cudaGetErrorName(cudaError_t e) {
  return e == 2     ? "cudaErrorMemoryAllocation"
         : e == 900 ? "cudaErrorStreamCaptureUnsupported"
         : e == 901 ? "cudaErrorStreamCaptureInvalidated"
                    : "cudaErrorNull";
}
const char* cudaGetErrorString(cudaError_t e) {
  return e == 0     ? "no error"
         : e == 2   ? "out of memory"
         : e == 900 ? "operation not permitted when stream is capturing"
         : e == 901 ? "operation failed due to a previous error during capture"
         : e == 906 ? "operation would make the legacy stream depend on a capturing blocking stream"
                    : "null error";
}
cudaError_t cudaGetLastError() {
  auto e = last;
  last = cudaSuccess;
  return e;
}
cudaError_t cudaPeekAtLastError() { return last; }

cudaError_t cudaMalloc(void** p, size_t n) {
  {
    Guard g(mu());
    counts()["cudaMalloc on device " + std::to_string(current)]++;
  }
  count("cudaMalloc");
  if (forbidden()) return fail(cudaErrorStreamCaptureUnsupported);
  Guard g(mu());
  size_t limit = cap_override ? cap_override : cap();
  if (used + n > limit) {
    counts()["cudaMalloc out of memory"]++;
    return fail(cudaErrorMemoryAllocation);
  }
  size_t m = (n + 4095) / 4096 * 4096;
  void* q = mmap(0, m + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (q == MAP_FAILED) return fail(cudaErrorMemoryAllocation);
  device_mem()[(uintptr_t)q] = m;
  used += m;
  if (used > peak) peak = used;
  *p = q;
  return cudaSuccess;
}
cudaError_t cudaFree(void* p) {
  count("cudaFree");
  if (!p) return cudaSuccess;
  if (forbidden()) return fail(cudaErrorStreamCaptureUnsupported);
  Guard g(mu());
  auto it = device_mem().find((uintptr_t)p);
  if (it == device_mem().end()) return fail(cudaErrorInvalidValue);
  munmap(p, it->second + 4096);
  used -= it->second;
  device_mem().erase(it);
  return cudaSuccess;
}
cudaError_t cudaMallocAsync(void** p, size_t n, cudaStream_t) { return cudaMalloc(p, n); }
cudaError_t cudaFreeAsync(void* p, cudaStream_t) { return cudaFree(p); }
cudaError_t cudaMemGetInfo(size_t* f, size_t* t) {
  Guard g(mu());
  count("cudaMemGetInfo");
  size_t l = cap_override ? cap_override : cap();
  *t = l;
  *f = l > used ? l - used : 0;
  return cudaSuccess;
}
cudaError_t cudaHostAlloc(void** p, size_t n, unsigned) {
  count("cudaHostAlloc");
  if (forbidden()) return fail(cudaErrorStreamCaptureUnsupported);
  Guard g(mu());
  *p = calloc(1, n + 64);
  pinned_mem()[(uintptr_t)*p] = n;
  return cudaSuccess;
}
cudaError_t cudaFreeHost(void* p) {
  count("cudaFreeHost");
  if (forbidden()) return fail(cudaErrorStreamCaptureUnsupported);
  Guard g(mu());
  pinned_mem().erase((uintptr_t)p);
  free(p);
  return cudaSuccess;
}
cudaError_t cudaHostRegister(void* p, size_t n, unsigned) {
  Guard g(mu());
  pinned_mem()[(uintptr_t)p] = n;
  return cudaSuccess;
}
cudaError_t cudaHostUnregister(void* p) {
  Guard g(mu());
  pinned_mem().erase((uintptr_t)p);
  return cudaSuccess;
}
cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes* a, const void* p) {
  memset(a, 0, sizeof *a);
  if (inside(device_mem(), p)) {
    a->type = cudaMemoryTypeDevice;
    a->devicePointer = (void*)p;
  } else if (inside(pinned_mem(), p)) {
    a->type = cudaMemoryTypeHost;
    a->hostPointer = (void*)p;
  } else a->type = cudaMemoryTypeUnregistered;
  return cudaSuccess;
}
static cudaError_t copy(void* d, const void* s, size_t n, bool async, Stream* st) {
  bool dd = inside(device_mem(), d), sd = inside(device_mem(), s);
  const void* host = dd && sd ? nullptr : dd ? s : d;
  bool pageable = host && !inside(pinned_mem(), host);
  const char* kind = dd && sd ? "D2D" : dd ? "H2D" : sd ? "D2H" : "H2H";
  {
    Guard g(mu());
    std::string k = std::string(st->capture ? "captured " : "") + (async ? "memcpyAsync " : "memcpy SYNC ") + kind +
                    (host ? (pageable ? " pageable" : " pinned") : "");
    counts()[k]++;
    counts()[k + " bytes"] += n;
    if (st->capture) {
      if (st->capture->invalid) return fail(cudaErrorStreamCaptureInvalidated);
      if (pageable) {
        st->capture->invalid = true;
        counts()["VIOLATION pageable copy in capture"]++;
        return fail(cudaErrorStreamCaptureUnsupported);
      }
      st->capture->graph->nodes++;
      return cudaSuccess;
    }
  }
  if (!async && forbidden()) return fail(cudaErrorStreamCaptureUnsupported);
  if (n <= (4u << 20) || host) memmove(d, s, n);
  return cudaSuccess;
}
cudaError_t cudaMemcpy(void* d, const void* s, size_t n, enum cudaMemcpyKind) { return copy(d, s, n, false, &legacy()); }
cudaError_t cudaMemcpyAsync(void* d, const void* s, size_t n, enum cudaMemcpyKind, cudaStream_t st) {
  return copy(d, s, n, true, of(st));
}
cudaError_t cudaMemcpyPeerAsync(void* d, int, const void* s, int, size_t n, cudaStream_t st) {
  return copy(d, s, n, true, of(st));
}
cudaError_t cudaMemcpy2DAsync(void*, size_t, const void*, size_t, size_t, size_t, enum cudaMemcpyKind, cudaStream_t) {
  count("memcpy2D");
  return cudaSuccess;
}
cudaError_t cudaMemcpyToSymbol(const void*, const void*, size_t, size_t, enum cudaMemcpyKind) { return cudaSuccess; }
static cudaError_t launched(Stream* s, const char* what, const void* func);
cudaError_t cudaMemsetAsync(void* p, int v, size_t n, cudaStream_t st) {
  Stream* s = of(st);
  auto e = launched(s, "memset", nullptr);
  if (!e && !s->capture && n <= 65536) memset(p, v, n);
  return e;
}
cudaError_t cudaMemset(void* p, int v, size_t n) {
  if (forbidden()) return fail(cudaErrorStreamCaptureUnsupported);
  count("memset SYNC");
  if (n <= 65536) memset(p, v, n);
  return cudaSuccess;
}
cudaError_t cudaGetSymbolAddress(void** p, const void* s) {
  *p = (void*)s;
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t* s, unsigned, int) {
  static std::atomic<int> n{1};
  auto* x = new Stream;
  x->number = n++;
  *s = (cudaStream_t)x;
  return cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* s, unsigned f) { return cudaStreamCreateWithPriority(s, f, 0); }
cudaError_t cudaStreamCreate(cudaStream_t* s) { return cudaStreamCreateWithPriority(s, 0, 0); }
cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaStreamQuery(cudaStream_t st) {
  auto* s = of(st);
  count("streamQuery");
  if (s->capture) {
    s->capture->invalid = true;
    count("VIOLATION streamQuery in capture");
    return fail(cudaErrorStreamCaptureUnsupported);
  }
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t st) {
  auto* s = of(st);
  count("SYNC stream");
  if (s->capture) {
    s->capture->invalid = true;
    count("VIOLATION streamSynchronize in capture");
    return fail(cudaErrorStreamCaptureUnsupported);
  }
  return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize() {
  count("SYNC device");
  Guard g(mu());
  if (!captures().empty()) {
    for (auto* c : captures()) c->invalid = true;
    counts()["VIOLATION deviceSynchronize in capture"]++;
    return fail(cudaErrorStreamCaptureUnsupported);
  }
  return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* e, unsigned) {
  *e = (cudaEvent_t) new Event;
  return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t* e) { return cudaEventCreateWithFlags(e, 0); }
cudaError_t cudaEventDestroy(cudaEvent_t e) {
  delete (Event*)e;
  return cudaSuccess;
}
cudaError_t cudaEventRecordWithFlags(cudaEvent_t e, cudaStream_t st, unsigned) {
  Guard g(mu());
  count("eventRecord");
  ((Event*)e)->capture = of(st)->capture;
  ((Event*)e)->recorded = true;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t st) { return cudaEventRecordWithFlags(e, st, 0); }
static cudaError_t event_look(cudaEvent_t e, const char* what) {
  Guard g(mu());
  count(what);
  auto* c = ((Event*)e)->capture;
  if (c && captures().count(c)) {
    c->invalid = true;
    counts()[std::string("VIOLATION ") + what + " in capture"]++;
    return fail(cudaErrorStreamCaptureUnsupported);
  }
  return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t e) { return event_look(e, "eventQuery"); }
cudaError_t cudaEventSynchronize(cudaEvent_t e) { return event_look(e, "SYNC event"); }
cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t, cudaEvent_t) {
  *ms = 1.0f;
  return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t st, cudaEvent_t e, unsigned) {
  Guard g(mu());
  count("waitEvent");
  auto* s = of(st);
  auto* c = ((Event*)e)->capture;
  if (c && captures().count(c)) {
    if (s == &legacy()) {
      c->invalid = true;
      counts()["VIOLATION legacy stream waits for a captured event"]++;
      return fail((cudaError_t)906);
    }
    s->capture = c;
  } else if (s->capture && ((Event*)e)->recorded) {
    s->capture->invalid = true;
    counts()["VIOLATION capture waits for an event of outside"]++;
    return fail((cudaError_t)905);
  }
  return cudaSuccess;
}
cudaError_t cudaStreamBeginCapture(cudaStream_t st, enum cudaStreamCaptureMode mode) {
  Guard g(mu());
  count("beginCapture");
  auto* s = of(st);
  if (s == &legacy()) return fail((cudaError_t)908);
  s->capture = new Capture{next_id++, new Graph, mode, pthread_self()};
  captures().insert(s->capture);
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t st, cudaGraph_t* g_) {
  Guard g(mu());
  count("endCapture");
  auto* s = of(st);
  auto* c = s->capture;
  *g_ = 0;
  if (!c) return fail((cudaError_t)902);
  s->capture = nullptr;
  captures().erase(c);
  if (!pthread_equal(c->thread, pthread_self()) && c->mode != cudaStreamCaptureModeRelaxed) {
    counts()["VIOLATION endCapture by another thread"]++;
    return fail((cudaError_t)909);
  }
  if (c->invalid) return fail(cudaErrorStreamCaptureInvalidated);
  *g_ = (cudaGraph_t)c->graph;
  return cudaSuccess;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t st, enum cudaStreamCaptureStatus* v) {
  Guard g(mu());
  auto* c = of(st)->capture;
  *v = !c ? cudaStreamCaptureStatusNone : c->invalid ? cudaStreamCaptureStatusInvalidated : cudaStreamCaptureStatusActive;
  return cudaSuccess;
}
cudaError_t cudaStreamGetCaptureInfo(cudaStream_t st, enum cudaStreamCaptureStatus* v, unsigned long long* id, cudaGraph_t* gr,
                                     const cudaGraphNode_t** deps, const cudaGraphEdgeData** ed, size_t* n) {
  Guard g(mu());
  auto* c = of(st)->capture;
  cudaStreamIsCapturing(st, v);
  if (c) {
    if (id) *id = c->id;
    if (gr) *gr = (cudaGraph_t)c->graph;
    if (n) *n = 0;
    if (deps) *deps = nullptr;
    if (ed) *ed = nullptr;
  }
  return cudaSuccess;
}
cudaError_t cudaThreadExchangeStreamCaptureMode(enum cudaStreamCaptureMode* m) {
  std::swap(*m, my_mode);
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* e, cudaGraph_t g, unsigned long long) {
  count("graphInstantiate");
  graphs_alive()++;
  count("graph nodes", ((Graph*)g)->nodes);
  *e = (cudaGraphExec_t)g;
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t, cudaStream_t st) {
  if (of(st)->capture) of(st)->capture->graph->nodes++;
  count("graphLaunch");
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t) { return cudaSuccess; }
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t) {
  count("graphExecDestroy");
  graphs_alive()--;
  return cudaSuccess;
}
cudaError_t cudaGraphGetNodes(cudaGraph_t g, cudaGraphNode_t*, size_t* n) {
  *n = ((Graph*)g)->nodes;
  return cudaSuccess;
}
cudaError_t cudaGraphNodeGetDependencies(cudaGraphNode_t, cudaGraphNode_t*, cudaGraphEdgeData*, size_t* n) {
  *n = 0;
  return cudaSuccess;
}

static cudaError_t launched(Stream* s, const char* what, const void* func) {
  Guard g(mu());
  counts()[std::string(s->capture ? "captured " : s == &legacy() ? "" : "side-stream ") + what]++;
  if (by_name) {
    auto it = func ? names().find(func) : names().end();
    kernels()[std::string(s->capture ? "C " : "E ") + (it == names().end() ? what : it->second)]++;
  }
  if (s->capture) {
    if (s->capture->invalid) return fail(cudaErrorStreamCaptureInvalidated);
    s->capture->graph->nodes++;
  } else if (s == &legacy())
    for (auto* c : captures())
      if (pthread_equal(c->thread, pthread_self())) counts()["WARNING launch on the default stream by the capturing thread"]++;
  return cudaSuccess;
}
cudaError_t nullcuda_library(cudaStream_t s, const char* what) { return launched(of(s), what, nullptr); }
cudaError_t cudaLaunchKernel(const void* f, dim3, dim3, void**, size_t, cudaStream_t s) { return launched(of(s), "kernel", f); }
cudaError_t __cudaLaunchKernel(cudaKernel_t f, dim3, dim3, void**, size_t, cudaStream_t s) {
  return launched(of(s), "kernel", (void*)f);
}
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* c, const void* f, void**) {
  return launched(of(c->stream), "kernel", f);
}
cudaError_t __cudaGetKernel(cudaKernel_t* k, const void* f) {
  *k = (cudaKernel_t)f;
  return cudaSuccess;
}
struct Config {
  dim3 g, b;
  size_t sh;
  cudaStream_t s;
};
static thread_local std::vector<Config>* stack_ = nullptr;
unsigned __cudaPushCallConfiguration(dim3 g, dim3 b, size_t sh, struct CUstream_st* s) {
  if (!stack_) stack_ = new std::vector<Config>;
  stack_->push_back({g, b, sh, (cudaStream_t)s});
  return 0;
}
cudaError_t __cudaPopCallConfiguration(dim3* g, dim3* b, size_t* sh, void* s) {
  auto c = stack_->back();
  stack_->pop_back();
  *g = c.g;
  *b = c.b;
  *sh = c.sh;
  *(cudaStream_t*)s = c.s;
  return cudaSuccess;
}
void** __cudaRegisterFatBinary(void*) { return (void**)calloc(1, 64); }
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
char __cudaInitModule(void**) { return 1; }
void __cudaRegisterFunction(void**, const char* host, char*, const char* name, int, uint3*, uint3*, dim3*, dim3*, int*) {
  if (getenv("NULLCUDA_NAMES")) {
    Guard g(mu());
    names()[host] = name;
  }
}
void __cudaRegisterVar(void**, char*, char*, const char*, int, size_t, int, int) {}
cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes* a, const void*) {
  memset(a, 0, sizeof *a);
  a->maxThreadsPerBlock = 1024;
  a->numRegs = 32;
  a->ptxVersion = a->binaryVersion = 90;
  a->maxDynamicSharedSizeBytes = 232448;
  return cudaSuccess;
}
cudaError_t cudaFuncSetAttribute(const void*, enum cudaFuncAttribute, int) { return cudaSuccess; }
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* n, const void*, int, size_t, unsigned) {
  *n = 2;
  return cudaSuccess;
}
cudaError_t cudaProfilerStart() { return cudaSuccess; }
cudaError_t cudaProfilerStop() { return cudaSuccess; }
cudaError_t cudaLaunchHostFunc(cudaStream_t, cudaHostFn_t f, void* d) {
  f(d);
  return cudaSuccess;
}
cudaError_t cudaStreamAddCallback(cudaStream_t s, cudaStreamCallback_t f, void* d, unsigned) {
  f(s, cudaSuccess, d);
  return cudaSuccess;
}
static int zero() { return 0; }
cudaError_t cudaGetDriverEntryPointByVersion(const char*, void** f, unsigned, unsigned long long,
                                             enum cudaDriverEntryPointQueryResult* r) {
  *f = (void*)zero;
  if (r) *r = cudaDriverEntryPointSuccess;
  return cudaSuccess;
}
}
