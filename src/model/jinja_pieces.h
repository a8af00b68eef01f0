#pragma once

#include <vector>

#include "model/jinja_program.h"
#include "model/template.h"

namespace halo {

/// Template::Pieces of a program that is not constant.
std::vector<TemplatePiece> PiecesOf(const JinjaProgram& program);

}  // namespace halo
