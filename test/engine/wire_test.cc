// Messages of an engine connection, there and back.
#include "engine/wire.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <map>
#include <sstream>

namespace halo {
namespace {

Request FilledRequest() {
  Request request;
  request.id = 0xFFFFFFFFFFFFFFFFULL;
  request.prompt_tokens = {1, -1, 50000};
  request.prompt_text = "bytes \xFF\x00 too";
  request.sampling = {0.7F, 0.9F, 40, 0.05F, 99, 3, {"stop", "\n"}, 0x8000000000000001ULL};
  request.adapter = "a:1";
  request.grammar = "root ::= \"a\"";
  request.static_prefix_tokens = 12;
  request.consumes = 3;
  request.keep = {4, true};
  request.priority = -2;
  request.order = 1LL << 40;
  request.urgent = true;
  request.deadline_us = 5;
  request.script_operator = "op";
  request.script_row = "row";
  request.row_index = 7;
  request.script_sample = 2;
  request.script_attempt = 1;
  return request;
}

TEST(Wire, RoundTripsEveryField) {
  const Request request = FilledRequest();
  FrameReader reader;
  const std::string frame = EncodeFrame(ToEngine(request));
  for (const char byte : frame) reader.Append(&byte, 1);
  FrameReader::Frame read;
  ASSERT_TRUE(reader.Next(read));
  EXPECT_EQ(read.shared_bytes, 0U);
  const ToEngine message = DecodeToEngine(read.body);
  const Request& back = std::get<Request>(message);
  EXPECT_EQ(EncodeFrame(ToEngine(back)), frame);
  EXPECT_EQ(back, request);
  EXPECT_FALSE(reader.Next(read));
}

SetupMessage FilledSetup() {
  SetupMessage message;
  message.version = "0.1 (abc)";
  message.worker = 3;
  message.workers = 5;
  message.lanes = 2;
  LlamaSetup& setup = message.setup;
  setup.model_name = "m";
  setup.model_path = "/path/with \"quotes\"/m.gguf";
  setup.adapters = {{"a:1", "/a.gguf", 0.5}, {"b:1", "/b.gguf", 1.0}};
  setup.threads = 3;
  setup.sequences = 17;
  setup.kv_bytes = 1LL << 40;
  setup.devices = {1, 3};
  setup.kept_bytes = 2;
  setup.kept_folder = "/var/tmp";
  setup.kept_disk_bytes = 3;
  setup.context_tokens = 4;
  setup.expected_tokens = 5;
  setup.layout = KvLayout::kUnified;
  setup.reuse = false;
  setup.exactness = Exactness::kRequired;
  setup.hash_logits = true;
  setup.record_spans = true;
  setup.batch_tokens = 6;
  setup.micro_batch_tokens = 7;
  setup.running_sequences = 8;
  setup.refill_sequences = 9;
  return message;
}

TEST(Wire, RoundTripsASetup) {
  const SetupMessage setup = FilledSetup();
  const ToEngine back = DecodeToEngine(EncodeFrame(ToEngine(setup)).substr(kLengthBytes));
  EXPECT_EQ(std::get<SetupMessage>(back), setup);
}

EngineSpans FilledSpans() {
  return {{{EngineSpan::Kind::kDecode, 1LL << 40, (1LL << 40) + 7, 5, 4, 3, 1LL << 33},
           {EngineSpan::Kind::kRestart, -1, 2, 0, 0, 0, 0}},
          9};
}

TEST(Wire, RoundTripsSpans) {
  const EngineSpans spans = FilledSpans();
  const FromEngine back = DecodeFromEngine(EncodeFrame(FromEngine(spans)).substr(kLengthBytes));
  EXPECT_EQ(std::get<EngineSpans>(back), spans);
}

// Seeds of an older format teach the fuzzer nothing: they are refused at the first key that is new.
TEST(Wire, SeedsOfTheFuzzTargetAreMessagesOfToday) {
  Completion completion;
  completion.id = 1;
  completion.failure = Failure{"op", "code", "message", true};
  completion.tokens = {1, 2};
  completion.text = "text";
  const std::map<std::string, std::string> frames = {
      {"request", EncodeFrame(ToEngine(FilledRequest()))},
      {"cancel", EncodeFrame(ToEngine(CancelMessage{7}))},
      {"cancel_waiting", EncodeFrame(ToEngine(CancelWaitingMessage{}))},
      {"release", EncodeFrame(ToEngine(ReleaseMessage{7, 2}))},
      {"go_on", EncodeFrame(ToEngine(GoOnMessage{}))},
      {"load", EncodeFrame(ToEngine(LoadMessage{false}))},
      {"loaded", EncodeFrame(FromEngine(LoadedMessage{}))},
      {"export", EncodeFrame(ToEngine(ExportMessage{7}))},
      {"kv", EncodeFrame(ToEngine(KvMessage{7, "x", {1, 2, 3}, 4096}))},
      {"setup", EncodeFrame(ToEngine(FilledSetup()))},
      {"fault", EncodeFrame(FromEngine(EngineFault{ErrorCode::kModel, "no such file"}))},
      {"failed_completion", EncodeFrame(FromEngine(completion))},
      {"description", EncodeFrame(FromEngine(EngineDescription{}))},
      {"statistics", EncodeFrame(FromEngine(EngineStatistics{}))},
      {"spans", EncodeFrame(FromEngine(FilledSpans()))}};
  for (const auto& [name, frame] : frames) {
    FrameReader reader;
    reader.Append(frame.data(), frame.size());
    FrameReader::Frame read;
    ASSERT_TRUE(reader.Next(read));
    const std::string& body = read.body;
    const std::string path = std::string(HALO_SOURCE_DIR) + "/test/fuzz/corpus/wire/" + name;
    if (std::getenv("HALO_UPDATE_SEEDS") != nullptr) std::ofstream(path, std::ios::binary) << body;
    std::ifstream file(path, std::ios::binary);
    std::stringstream kept;
    kept << file.rdbuf();
    EXPECT_EQ(kept.str(), body) << name << ": run this test with HALO_UPDATE_SEEDS=1";
  }
}

TEST(Wire, RefusesWhatIsNoMessage) {
  EXPECT_THROW(DecodeToEngine("garbage"), Error);
  EXPECT_THROW(DecodeFromEngine(std::string("\xA1\x61", 2)), Error);
  FrameReader reader;
  reader.Append("\xFF\xFF\xFF\xFF", 4);
  FrameReader::Frame frame;
  EXPECT_THROW(reader.Next(frame), Error);
  FrameReader other;
  other.Append("\x00\x00\x00\x80", 4);  // nothing, in shared memory
  EXPECT_THROW(other.Next(frame), Error);
}

std::string Body(const std::string& frame) { return frame.substr(kLengthBytes); }

// Bytes of a bad or broken engine must not become a message, nor take memory that is not there.
TEST(Wire, RefusesWhatIsNotExactlyAMessage) {
  const std::string request = Body(EncodeFrame(ToEngine(FilledRequest())));
  Completion filled;
  filled.failure = Failure{"op", "code", "message", true};
  filled.tokens = {1, 2};
  filled.text = "text";
  const std::string completion = Body(EncodeFrame(FromEngine(filled)));
  for (size_t size = 0; size < request.size(); ++size)
    EXPECT_THROW(DecodeToEngine(request.substr(0, size)), Error) << size;
  for (size_t size = 0; size < completion.size(); ++size)
    EXPECT_THROW(DecodeFromEngine(completion.substr(0, size)), Error) << size;
  EXPECT_THROW(DecodeToEngine(request + '\0'), Error);
  EXPECT_THROW(DecodeFromEngine(completion + 'x'), Error);
  EXPECT_THROW(DecodeFromEngine(request), Error);
  EXPECT_THROW(DecodeToEngine(completion), Error);
  EXPECT_THROW(DecodeToEngine("\x70"), Error);
  EXPECT_THROW(DecodeFromEngine("\xF0"), Error);
}

TEST(Wire, RefusesCountsAndChoicesThatAreNone) {
  const std::string cancel = Body(EncodeFrame(ToEngine(CancelMessage{42})));
  EXPECT_EQ(std::get<CancelMessage>(DecodeToEngine(cancel)).id, 42U);
  std::string setup = Body(EncodeFrame(ToEngine(SetupMessage{})));
  // Behind the kind, an empty version, worker, workers, lanes, two empty names, no adapters,
  // threads, no devices.
  const size_t load = 1 + 9 * sizeof(uint32_t);
  ASSERT_EQ(setup.at(load), 1);
  setup[load] = 2;  // neither true nor false
  EXPECT_THROW(DecodeToEngine(setup), Error);
  setup[load] = 1;
  setup.replace(1, sizeof(uint32_t), "\xFF\xFF\xFF\xFF");  // a text of 4 GB
  EXPECT_THROW(DecodeToEngine(setup), Error);
  std::string completion = Body(EncodeFrame(FromEngine(Completion{})));
  const size_t finish = 1 + sizeof(RequestId);
  ASSERT_EQ(completion.at(finish), static_cast<char>(FinishReason::kFailed));
  completion[finish] = 4;
  EXPECT_THROW(DecodeFromEngine(completion), Error);
  std::string spans = Body(EncodeFrame(FromEngine(EngineSpans{})));
  spans.replace(1, sizeof(uint32_t), "\xFF\xFF\xFF\x7F");
  EXPECT_THROW(DecodeFromEngine(spans), Error);
}

}  // namespace
}  // namespace halo
