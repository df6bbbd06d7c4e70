// What tests/cuda_emulation/on_device.cpp is compiled with for a real device.
#pragma once

#include <cuda_runtime.h>
