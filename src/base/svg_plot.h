#pragma once
// Line plots as SVG that any browser shows: panels under each other that share the x axis, with axes, grid and a legend.

#include <string>
#include <utility>
#include <vector>

namespace tinyserve {

struct PlotLine {
  std::string label;                              ///< of equal labels in several panels the colours are equal
  std::vector<std::pair<double, double>> points;  ///< x, y; x ascending
};

struct PlotPanel {
  std::string y_label;
  std::vector<PlotLine> lines;
  bool log_y = false;   ///< points that are not positive are left out
  double y_max = 0;     ///< fixed upper end, 0: of the data
  bool from_data = false;  ///< the axis begins at the data's smallest value rather than at 0
};

struct PlotOptions {
  bool log_x = false;    ///< points that are not positive are left out
  bool markers = false;  ///< a dot at every point: for lines of few
};

/// The picture's text. Points that are not finite are left out; a panel without points has its axes.
std::string plot_svg(const std::string& title, const std::string& x_label, const std::vector<PlotPanel>& panels,
                     const PlotOptions& options = {});

/// About `count` round numbers (1, 2 or 5 times a power of ten apart) that cover [low, high].
std::vector<double> axis_ticks(double low, double high, int count);

}  // namespace tinyserve
