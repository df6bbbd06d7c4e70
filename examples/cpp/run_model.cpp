// Runs a model with tree scans that was exported from Python and packaged by AOTInductor, without Python:
//
//   run_model MODEL.pt2 INPUTS.pt OUTPUTS.pt
//
// INPUTS.pt is a list of tensors as torch.save writes it, OUTPUTS.pt a tuple that torch.load reads. The operations come from
// libtreescan_torch, which this program is linked with; nothing in it has to be called.
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>
#include <torch/script.h>
#include <torch/serialize.h>

#include <exception>
#include <fstream>
#include <iostream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

std::vector<char> read(const std::string &path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("can't read " + path);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

void write(const std::string &path, const std::vector<char> &bytes) {
  std::ofstream file(path, std::ios::binary);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  if (!file.flush()) throw std::runtime_error("can't write " + path);
}

}  // namespace

int main(int count, char **arguments) {
  if (count != 4) {
    std::cerr << "usage: run_model MODEL.pt2 INPUTS.pt OUTPUTS.pt\n";
    return 2;
  }
  try {
    const torch::InferenceMode inference;
    std::vector<at::Tensor> inputs;
    const c10::IValue given = torch::pickle_load(read(arguments[2]));
    for (const c10::IValue &value : given.toListRef()) inputs.push_back(value.toTensor());
    torch::inductor::AOTIModelPackageLoader model(arguments[1]);
    std::vector<c10::IValue> outputs;  // a tuple: Python would have to be told to trust a list
    for (const at::Tensor &tensor : model.run(inputs)) outputs.emplace_back(tensor);
    write(arguments[3], torch::pickle_save(c10::ivalue::Tuple::create(outputs)));
  } catch (const c10::Error &error) {
    std::cerr << "run_model: " << error.what_without_backtrace() << '\n';
    return 1;
  } catch (const std::exception &error) {
    std::cerr << "run_model: " << error.what() << '\n';
    return 1;
  }
  return 0;
}
