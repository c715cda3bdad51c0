#include "cli/flags.h"

int main(int argc, char** argv) { return tinyserve::cli::run_program(argc, argv); }
