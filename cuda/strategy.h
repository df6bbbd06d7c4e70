// Ways of working that give the same results, as the caller chose them.
#pragma once

namespace treescan::cuda {

enum class TreeTeam { automatic, block, grid };
TreeTeam tree_team();

enum class ScanStrategy { automatic, levels, paths };
ScanStrategy scan_strategy();

}  // namespace treescan::cuda
