// Smooths a picture along its tree: tree_filter IN.ppm OUT.ppm [SOFTNESS]. README.md says what that is.
#include <cstdint>
#include <fstream>
#include <iostream>
#include <limits>
#include <stdexcept>
#include <string>
#include <treescan/treescan.hpp>
#include <vector>

namespace {

struct Picture {
  int64_t channels = 0, height = 0, width = 0;
  std::vector<unsigned char> bytes;  // pixel by pixel
};

Picture read(const std::string &path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error(path + ": can't be read");
  const auto number = [&] {
    int64_t value = 0;
    while ((file >> std::ws).peek() == '#') file.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
    file >> value;
    return value;
  };
  Picture picture;
  std::string magic(2, ' ');
  file.read(magic.data(), 2);
  picture.channels = magic == "P6" ? 3 : magic == "P5" ? 1 : 0;
  picture.width = number();
  picture.height = number();
  const bool has_bytes = number() == 255 && file.get() != std::ifstream::traits_type::eof();
  if (picture.channels == 0 || picture.width < 1 || picture.height < 1 || picture.width > 1000000 ||
      picture.height > 1000000 || !has_bytes)
    throw std::runtime_error(path + ": expected a PPM or PGM file of bytes");
  picture.bytes.resize(static_cast<size_t>(picture.channels * picture.height * picture.width));
  file.read(reinterpret_cast<char *>(picture.bytes.data()), static_cast<std::streamsize>(picture.bytes.size()));
  if (!file) throw std::runtime_error(path + ": ends early");
  return picture;
}

void write(const std::string &path, const Picture &picture) {
  std::ofstream file(path, std::ios::binary);
  file << (picture.channels == 3 ? "P6" : "P5") << "\n" << picture.width << " " << picture.height << "\n255\n";
  file.write(reinterpret_cast<const char *>(picture.bytes.data()), static_cast<std::streamsize>(picture.bytes.size()));
  if (!file.flush()) throw std::runtime_error(path + ": can't be written");
}

Picture filter(Picture picture, float softness) {
  const int64_t channels = picture.channels, pixels = picture.height * picture.width;

  // Floats, pixel by pixel, with a channel of ones behind the colours.
  const int64_t step = channels + 1;
  std::vector<float> values, sums(static_cast<size_t>(pixels * step));
  values.reserve(sums.size());
  for (size_t i = 0; i < picture.bytes.size(); ++i) {
    values.push_back(picture.bytes[i]);
    if ((i + 1) % static_cast<size_t>(channels) == 0) values.push_back(1);
  }

  // What neighbours differ by, and the tree that avoids large differences. Views say how memory is read: here one is of the
  // colours alone.
  const treescan::graph grid = treescan::grid(picture.height, picture.width);
  const treescan::tensor_view colours(values.data(), {1, channels, pixels}, {0, 1, step});
  const std::vector<float> cost = treescan::edge_weights(grid, colours, treescan::metric::l1);
  const treescan::tree tree = treescan::minimum_spanning_tree(grid, {cost.data(), {1, grid.num_edges()}});

  // The smaller the step from a pixel to its parent, the more passes. One weight serves all channels: their stride is 0.
  std::vector<float> weights;
  for (const int32_t edge : tree.edge)
    weights.push_back(edge < 0 ? 0 : softness / (softness + cost[static_cast<size_t>(edge)]));
  treescan::scan(treescan::direction::both, tree, {values.data(), {1, step, pixels}, {0, 1, step}},
                 {weights.data(), {1, step, pixels}, {0, 0, 1}}, {sums.data(), {1, step, pixels}, {0, 1, step}});

  // Sums of colours over sums of ones are means.
  unsigned char *byte = picture.bytes.data();
  for (const float *sum = sums.data(); sum != sums.data() + sums.size(); sum += step)
    for (int64_t c = 0; c < channels; ++c) *byte++ = static_cast<unsigned char>(sum[c] / sum[channels] + 0.5f);
  return picture;
}

}  // namespace

int main(int count, char **arguments) try {
  if (count < 3 || count > 4) throw std::runtime_error("usage: tree_filter IN.ppm OUT.ppm [SOFTNESS]");
  const float softness = count == 4 ? std::stof(arguments[3]) : 8.0f;
  if (!(softness > 0)) throw std::runtime_error("SOFTNESS: expected a number above 0");
  write(arguments[2], filter(read(arguments[1]), softness));
  return 0;
} catch (const std::exception &error) {
  std::cerr << "tree_filter: " << error.what() << std::endl;
  return 1;
}
