import openai

api_key = "your_api_key"
openai.api_key = api_key

response = openai.Completion.create(
  engine="text-davinci-002",
  prompt="What is the capital of France?",
  max_tokens=1,
  n=1,
  stop=None,
  temperature=0.5,
)

print(response.choices[0].text.strip())
