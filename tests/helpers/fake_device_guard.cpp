// Device guards, and for CUDA hooks, in a build of PyTorch for CPUs alone: of each kind there is one device, and
// everything begun on it is done at once. Autograd then follows fake tensors that claim to be on it, and computes
// their gradients in a thread of the device, as on a GPU.
#include <ATen/detail/CUDAHooksInterface.h>
#include <ATen/detail/MPSHooksInterface.h>
#include <ATen/detail/XPUHooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

#include <cstdlib>
#include <cstring>

namespace {

template <c10::DeviceType kind>
struct Guard : c10::impl::NoOpDeviceGuardImpl<kind> {
  static c10::Device only() { return c10::Device(kind, 0); }
  static c10::Stream stream() { return c10::Stream(c10::Stream::DEFAULT, only()); }
  c10::Device exchangeDevice(c10::Device) const override { return only(); }
  c10::Device getDevice() const override { return only(); }
  c10::Stream getStream(c10::Device) const noexcept override { return stream(); }
  c10::Stream getNewStream(c10::Device, int) const override { return stream(); }
  c10::Stream exchangeStream(c10::Stream) const noexcept override { return stream(); }
  void record(void**, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void synchronizeEvent(void*) const override {}
  void synchronizeDevice(const c10::DeviceIndex) const override {}
};

C10_REGISTER_GUARD_IMPL(CUDA, Guard<c10::DeviceType::CUDA>)
C10_REGISTER_GUARD_IMPL(XPU, Guard<c10::DeviceType::XPU>)
C10_REGISTER_GUARD_IMPL(MPS, Guard<c10::DeviceType::MPS>)

}  // namespace

namespace at {

// A process has one kind of accelerator, which this library is told by an environment variable.
bool is_there(const char* kind) {
  const char* asked = std::getenv("FAKE_DEVICE");
  return asked != nullptr && std::strcmp(asked, kind) == 0;
}

struct CUDAHooks : CUDAHooksInterface {
  explicit CUDAHooks(CUDAHooksArgs) {}
  void init() const override {}
  bool hasCUDA() const override { return is_there("cuda"); }
  bool hasCuDNN() const override { return true; }
  bool isAvailable() const override { return true; }
  bool isBuilt() const override { return is_there("cuda"); }
  bool hasPrimaryContext(DeviceIndex) const override { return true; }
  DeviceIndex current_device() const override { return 0; }
  DeviceIndex getCurrentDevice() const override { return 0; }
  DeviceIndex deviceCount() const override { return 1; }
  bool compiledWithCuDNN() const override { return true; }
  bool supportsDilatedConvolutionWithCuDNN() const override { return true; }
  bool supportsBFloat16ConvolutionWithCuDNNv8() const override { return true; }
  long versionCuDNN() const override { return 91000; }
  long versionRuntimeCuDNN() const override { return 91000; }
  int getNumGPUs() const override { return 1; }
  void deviceSynchronize(DeviceIndex) const override {}
};

struct XPUHooks : XPUHooksInterface {
  void init() const override {}
  bool hasXPU() const override { return is_there("xpu"); }
  bool isBuilt() const override { return is_there("xpu"); }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(DeviceIndex) const override { return true; }
  DeviceIndex getNumGPUs() const override { return 1; }
  DeviceIndex current_device() const override { return 0; }
  void deviceSynchronize(DeviceIndex) const override {}
};

struct MPSHooks : MPSHooksInterface {
  void init() const override {}
  bool hasMPS() const override { return is_there("mps"); }
  bool isBuilt() const override { return is_there("mps"); }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(DeviceIndex) const override { return true; }
  void deviceSynchronize() const override {}
};

REGISTER_CUDA_HOOKS(CUDAHooks)
REGISTER_XPU_HOOKS(XPUHooks)
REGISTER_MPS_HOOKS(MPSHooks)

}  // namespace at
