#include "core/arrow_table.h"

#include <cerrno>
#include <utility>

#include "halo/error.h"

namespace halo::python {
namespace {

constexpr int64_t kBitsPerByte = 8;

/// A column as Arrow lays it out: a bit a value that says whether there is one, then 64-bit
/// numbers, or 64-bit offsets into bytes.
struct ColumnLayout {
  std::string name;
  bool is_text = false;
  int64_t nulls = 0;
  std::vector<uint8_t> validity;
  std::vector<int64_t> numbers;  // or offsets
  std::string bytes;
};

template <typename Values>
void MarkValid(const Values& values, ColumnLayout& column) {
  column.validity.assign((values.size() + kBitsPerByte - 1) / kBitsPerByte, 0);
  for (size_t i = 0; i < values.size(); ++i) {
    if (values[i]) {
      column.validity[i / kBitsPerByte] |= static_cast<uint8_t>(1U << (i % kBitsPerByte));
    } else {
      ++column.nulls;
    }
  }
}

ColumnLayout LayOut(const ArrowColumn& given) {
  ColumnLayout column;
  column.name = given.name;
  if (const auto* texts = std::get_if<Texts>(&given.values)) {
    column.is_text = true;
    MarkValid(*texts, column);
    column.numbers.push_back(0);
    for (const auto& text : *texts) {
      if (text) column.bytes += *text;
      column.numbers.push_back(static_cast<int64_t>(column.bytes.size()));
    }
  } else {
    const Numbers& numbers = std::get<Numbers>(given.values);
    MarkValid(numbers, column);
    for (const auto& number : numbers) column.numbers.push_back(number.value_or(0));
  }
  return column;
}

/// What a schema or an array owns: its children, and whatever keeps its memory.
template <typename Node>
struct Owned {
  std::shared_ptr<const void> memory;  // shared by the parts of one export
  std::vector<Node> children;
  std::vector<Node*> pointers;
  std::vector<const void*> buffers;
};

template <typename Node>
void Release(Node* node) {
  for (int64_t i = 0; i < node->n_children; ++i) {
    // A child that was moved away has no release any more.
    if (node->children[i]->release != nullptr) node->children[i]->release(node->children[i]);
  }
  delete static_cast<Owned<Node>*>(node->private_data);
  node->release = nullptr;
}

template <typename Node>
void Adopt(std::unique_ptr<Owned<Node>> owned, Node* node) {
  for (Node& child : owned->children) owned->pointers.push_back(&child);
  node->n_children = static_cast<int64_t>(owned->children.size());
  node->children = owned->pointers.data();
  node->release = Release<Node>;
  node->private_data = owned.release();
}

}  // namespace

struct ArrowTable::Layout {
  std::vector<ColumnLayout> columns;
  int64_t rows = 0;

  static void MakeSchema(const std::shared_ptr<const Layout>& layout, ArrowSchema* out);
  static void MakeArray(const std::shared_ptr<const Layout>& layout, ArrowArray* out);
};

void ArrowTable::Layout::MakeSchema(const std::shared_ptr<const Layout>& layout, ArrowSchema* out) {
  auto owned = std::make_unique<Owned<ArrowSchema>>();
  owned->memory = layout;
  for (const ColumnLayout& column : layout->columns) {
    ArrowSchema child{};
    child.format = column.is_text ? "U" : "l";
    child.name = column.name.c_str();
    child.flags = kArrowNullable;
    auto own = std::make_unique<Owned<ArrowSchema>>();
    own->memory = layout;
    Adopt(std::move(own), &child);
    owned->children.push_back(child);
  }
  *out = ArrowSchema{};
  out->format = "+s";
  out->name = "";
  Adopt(std::move(owned), out);
}

void ArrowTable::Layout::MakeArray(const std::shared_ptr<const Layout>& layout, ArrowArray* out) {
  auto owned = std::make_unique<Owned<ArrowArray>>();
  owned->memory = layout;
  owned->buffers = {nullptr};
  for (const ColumnLayout& column : layout->columns) {
    ArrowArray child{};
    child.length = layout->rows;
    child.null_count = column.nulls;
    auto own = std::make_unique<Owned<ArrowArray>>();
    own->memory = layout;
    own->buffers = {column.validity.data(), column.numbers.data()};
    if (column.is_text) own->buffers.push_back(column.bytes.data());
    child.n_buffers = static_cast<int64_t>(own->buffers.size());
    child.buffers = own->buffers.data();
    Adopt(std::move(own), &child);
    owned->children.push_back(child);
  }
  *out = ArrowArray{};
  out->length = layout->rows;
  out->n_buffers = 1;
  out->buffers = owned->buffers.data();
  Adopt(std::move(owned), out);
}

ArrowTable::ArrowTable(const std::vector<ArrowColumn>& columns) {
  auto layout = std::make_shared<Layout>();
  for (const ArrowColumn& column : columns) {
    const auto rows = std::visit(
        [](const auto& values) { return static_cast<int64_t>(values.size()); }, column.values);
    if (!layout->columns.empty() && rows != layout->rows)
      throw Error(ErrorCode::kUsage, "the column '" + column.name + "' has another length");
    layout->rows = rows;
    layout->columns.push_back(LayOut(column));
  }
  layout_ = std::move(layout);
}

int64_t ArrowTable::rows() const { return layout_->rows; }

void ArrowTable::Export(ArrowArrayStream* out) const {
  struct Stream {
    std::shared_ptr<const Layout> layout;  // shared with the table and its other streams
    bool is_given = false;
  };
  *out = ArrowArrayStream{};
  out->private_data = new Stream{layout_, false};
  out->get_schema = [](ArrowArrayStream* stream, ArrowSchema* schema) {
    Layout::MakeSchema(static_cast<Stream*>(stream->private_data)->layout, schema);
    return 0;
  };
  out->get_next = [](ArrowArrayStream* stream, ArrowArray* array) {
    auto* own = static_cast<Stream*>(stream->private_data);
    *array = ArrowArray{};  // released: the end
    if (!std::exchange(own->is_given, true)) Layout::MakeArray(own->layout, array);
    return 0;
  };
  out->get_last_error = [](ArrowArrayStream*) -> const char* { return nullptr; };
  out->release = [](ArrowArrayStream* stream) {
    delete static_cast<Stream*>(stream->private_data);
    stream->release = nullptr;
  };
}

}  // namespace halo::python
