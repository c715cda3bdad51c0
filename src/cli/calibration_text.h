#pragma once

namespace tinyserve::cli {

/// calibration_text.txt: excerpts of Anna Karenina (tr. Constance Garnett), Huckleberry Finn, inaugural addresses and Python's PEPs, all
/// in the public domain, and of our own scheduler.
extern const char kCalibrationText[];

}  // namespace tinyserve::cli
