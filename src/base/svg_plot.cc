#include "base/svg_plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace tinyserve {
namespace {

constexpr double kWidth = 960, kPanelHeight = 240, kLeft = 80, kRight = 20, kTop = 44, kGap = 26, kBottom = 52;
// Okabe and Ito's colours, which colour-blind people tell apart; black is for text.
constexpr const char* kColours[] = {"#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#666666", "#B0A000"};

std::string escape(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '&') out += "&amp;";
    else if (c == '<') out += "&lt;";
    else if (c == '>') out += "&gt;";
    else out += c;
  }
  return out;
}

std::string number(double v) { return fmt::format("{:.6g}", v); }

/// From values to a stretch of the picture.
struct Axis {
  double low = 0, high = 1, from = 0, to = 1;
  bool log = false;
  double place(double v) const {
    const double share = log ? std::log(v / low) / std::log(high / low) : (v - low) / (high - low);
    return from + share * (to - from);
  }
};

bool shown(const PlotPanel& panel, const PlotOptions& options, const std::pair<double, double>& p) {
  return std::isfinite(p.first) && std::isfinite(p.second) && (!panel.log_y || p.second > 0) && (!options.log_x || p.first > 0);
}

Axis x_axis(const std::vector<PlotPanel>& panels, const PlotOptions& options) {
  double low = std::numeric_limits<double>::infinity(), high = -low;
  for (const PlotPanel& panel : panels)
    for (const PlotLine& line : panel.lines)
      for (const auto& p : line.points)
        if (shown(panel, options, p)) low = std::min(low, p.first), high = std::max(high, p.first);
  if (options.log_x) {
    if (!std::isfinite(low)) low = high = 1;
    if (!(high > low)) low /= 2, high *= 2;
    return {low, high, kLeft, kWidth - kRight, true};
  }
  if (!(high > low)) low = std::isfinite(low) ? low : 0, high = low + 1;
  return {low, high, kLeft, kWidth - kRight, false};
}

Axis y_axis(const PlotPanel& panel, const PlotOptions& options, double top) {
  double low = std::numeric_limits<double>::infinity(), high = panel.from_data ? -low : 0;
  for (const PlotLine& line : panel.lines)
    for (const auto& p : line.points)
      if (shown(panel, options, p)) low = std::min(low, p.second), high = std::max(high, p.second);
  if (panel.y_max > 0) high = panel.y_max;
  if (panel.log_y) {
    low = std::isfinite(low) ? std::pow(10, std::floor(std::log10(low))) : 1;
    high = high > low ? std::pow(10, std::ceil(std::log10(high) - 1e-9)) : 10 * low;
    if (high <= low) high = 10 * low;
  } else if (panel.from_data) {
    if (!(high > low)) low = std::isfinite(low) ? low : 0, high = low + 1;
    const std::vector<double> ticks = axis_ticks(low, high, 5);
    low = ticks.front(), high = ticks.back();
  } else {
    low = 0;
    high = high > 0 ? axis_ticks(0, high, 5).back() : 1;
  }
  return {low, high, top + kPanelHeight, top, panel.log_y};
}

std::vector<double> ticks_of(const Axis& axis, int count) {
  std::vector<double> ticks;
  if (axis.log) {
    for (double power = std::pow(10, std::floor(std::log10(axis.low))); power <= axis.high; power *= 10)
      for (const double step : {1, 2, 5})  // the steps between powers of ten only where there are few of those
        if (step == 1 || axis.high / axis.low < 1000) ticks.push_back(step * power);
  } else {
    ticks = axis_ticks(axis.low, axis.high, count);
  }
  const double slack = 1e-9 * (axis.high - axis.low);
  std::erase_if(ticks, [&](double v) { return v < axis.low - slack || v > axis.high + slack; });
  return ticks;
}

std::string text(double x, double y, const char* anchor, const std::string& words, const char* more = "") {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\"{}>{}</text>\n", x, y, anchor, more, escape(words));
}

std::string draw_panel(const PlotPanel& panel, const PlotOptions& options, const Axis& x, double top, const std::vector<std::string>& labels) {
  const Axis y = y_axis(panel, options, top);
  std::string out;
  for (const double v : ticks_of(y, 5)) {
    out += fmt::format("<path d=\"M{:.1f} {:.1f}H{:.1f}\" class=\"grid\"/>\n", kLeft, y.place(v), kWidth - kRight);
    out += text(kLeft - 6, y.place(v) + 4, "end", number(v));
  }
  for (const double v : ticks_of(x, 8))
    out += fmt::format("<path d=\"M{:.1f} {:.1f}V{:.1f}\" class=\"grid\"/>\n", x.place(v), top, top + kPanelHeight);
  out += fmt::format("<path d=\"M{0:.1f} {1:.1f}V{2:.1f}H{3:.1f}\" class=\"axis\"/>\n", kLeft, top, top + kPanelHeight, kWidth - kRight);
  const double middle = top + kPanelHeight / 2;
  out += text(18, middle, "middle", panel.y_label, fmt::format(" transform=\"rotate(-90 18 {:.1f})\"", middle).c_str());
  for (const PlotLine& line : panel.lines) {
    const auto colour = static_cast<size_t>(std::find(labels.begin(), labels.end(), line.label) - labels.begin()) % std::size(kColours);
    std::string path;
    for (const auto& p : line.points) {
      if (!shown(panel, options, p)) continue;
      const double px = x.place(p.first), py = y.place(std::clamp(p.second, y.low, y.high));
      path += fmt::format("{}{:.1f} {:.1f}", path.empty() ? "M" : "L", px, py);
      if (options.markers) out += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3.5\" fill=\"{}\"/>\n", px, py, kColours[colour]);
    }
    if (!path.empty()) out += fmt::format("<path d=\"{}\" class=\"line\" stroke=\"{}\"/>\n", path, kColours[colour]);
  }
  return out;
}

}  // namespace

std::vector<double> axis_ticks(double low, double high, int count) {
  if (!(high > low) || !std::isfinite(low) || !std::isfinite(high)) return {low};
  const double rough = (high - low) / count;
  const double power = std::pow(10, std::floor(std::log10(rough)));
  const double step = rough / power <= 1 ? power : rough / power <= 2 ? 2 * power : rough / power <= 5 ? 5 * power : 10 * power;
  std::vector<double> ticks;
  const double first = std::floor(low / step + 1e-9), last = std::ceil(high / step - 1e-9);
  for (double i = first; i <= last; ++i) ticks.push_back(i * step);
  return ticks;
}

std::string plot_svg(const std::string& title, const std::string& x_label, const std::vector<PlotPanel>& panels, const PlotOptions& options) {
  std::vector<std::string> labels;
  for (const PlotPanel& panel : panels)
    for (const PlotLine& line : panel.lines)
      if (std::find(labels.begin(), labels.end(), line.label) == labels.end()) labels.push_back(line.label);
  const auto count = static_cast<double>(std::max<size_t>(panels.size(), 1));
  const double height = kTop + count * kPanelHeight + (count - 1) * kGap + kBottom + 24;
  std::string out = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0} {1}\" width=\"{0}\" height=\"{1}\" font-family=\"sans-serif\" "
      "font-size=\"12\">\n<style>.grid{{stroke:#ddd}}.axis{{stroke:#000;fill:none}}.line{{fill:none;stroke-width:1.5;stroke-linejoin:round}}</style>\n"
      "<rect width=\"{0}\" height=\"{1}\" fill=\"#fff\"/>\n", kWidth, height);
  out += text(kLeft, 24, "start", title, " font-size=\"16\"");
  const Axis x = x_axis(panels, options);
  double top = kTop;
  for (const PlotPanel& panel : panels) {
    out += draw_panel(panel, options, x, top, labels);
    top += kPanelHeight + kGap;
  }
  const double base = top - kGap;
  for (const double v : ticks_of(x, 8)) out += text(x.place(v), base + 17, "middle", number(v));
  out += text((kLeft + kWidth - kRight) / 2, base + 36, "middle", x_label);
  double at = kLeft;
  for (size_t i = 0; i < labels.size(); ++i) {
    out += fmt::format("<path d=\"M{:.1f} {:.1f}h22\" class=\"line\" stroke=\"{}\"/>\n", at, base + 56, kColours[i % std::size(kColours)]);
    out += text(at + 28, base + 60, "start", labels[i]);
    at += 48 + 7.5 * static_cast<double>(labels[i].size());
  }
  return out + "</svg>\n";
}

}  // namespace tinyserve
